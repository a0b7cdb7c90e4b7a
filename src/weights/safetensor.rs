//! Reading safetensors: an 8-byte length, a JSON header, then the bytes of all tensors without gaps.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files;
use crate::weights::dtype::Dtype;
use crate::weights::state::{AGAIN, StateDict, WeightFormat, elements};

/// The longest header that is read, in bytes. A tensor takes about a hundred; parsed, they grow some thirtyfold.
pub(super) const MAX_HEADER: u64 = 16 << 20;

/// A header: where the tensors lie, in the order of their bytes, and the file's own strings.
pub(super) struct Header {
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// One tensor of the header, checked: its bytes lie in the file and are as many as its shape needs.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    start: u64,
    end: u64,
}

/// Reads all tensors.
pub(super) fn read(path: &Path) -> Result<StateDict> {
    let mut file = BufReader::new(files::open(path).map_err(interrupted)?);
    let header = read_header(&mut file, path)?;
    let mut state = StateDict::new(WeightFormat::Safetensors);
    state.metadata = header.metadata;
    let mut bytes = Vec::new();
    for entry in header.entries {
        // The header's check has compared the range with the file's length.
        bytes.resize((entry.end - entry.start) as usize, 0);
        file.read_exact(&mut bytes).map_err(interrupted)?;
        state.insert(entry.name, entry.shape, entry.dtype, &bytes);
    }
    Ok(state)
}

/// Reads and checks the header at the start of `file`, and leaves the reader at the first tensor's bytes.
pub(super) fn read_header(file: &mut impl Read, path: &Path) -> Result<Header> {
    let size = std::fs::metadata(path).map_err(interrupted)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(interrupted)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(size.saturating_sub(8)) {
        return Err(Error::new(format!(
            "its header claims {length} bytes of the file's {size}, and at most {MAX_HEADER} are read"
        ))
        .with_hint(AGAIN));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(interrupted)?;
    let json: Map<String, Value> = serde_json::from_slice(&text)
        .map_err(|cause| Error::new("its header is not JSON").with_source(cause).with_hint(AGAIN))?;
    check(json, size - 8 - length)
}

fn check(json: Map<String, Value>, data_bytes: u64) -> Result<Header> {
    let mut header = Header { entries: Vec::new(), metadata: BTreeMap::new() };
    for (name, value) in json {
        if name == "__metadata__" {
            let strings = value.as_object().into_iter().flatten();
            header.metadata =
                strings.map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), Into::into))).collect();
        } else {
            header.entries.push(entry(name, &value)?);
        }
    }
    header.entries.sort_by_key(|entry| (entry.start, entry.end));
    let mut end = 0;
    for entry in &header.entries {
        if entry.start != end {
            return Err(Error::new(format!(
                "the bytes of `{}` start at {}, where {end} is expected: tensors overlap or leave gaps",
                entry.name, entry.start
            ))
            .with_hint(AGAIN));
        }
        end = entry.end;
    }
    if end != data_bytes {
        return Err(Error::new(format!("its header describes {end} bytes of tensors, but {data_bytes} follow"))
            .with_hint(AGAIN));
    }
    Ok(header)
}

fn entry(name: String, value: &Value) -> Result<Entry> {
    let fields = || {
        let shape = value.get("shape")?.as_array()?.iter().map(|n| usize::try_from(n.as_u64()?).ok());
        let [start, end] = value.get("data_offsets")?.as_array()?.as_slice() else { return None };
        Some((value.get("dtype")?.as_str()?, shape.collect::<Option<Vec<_>>>()?, start.as_u64()?, end.as_u64()?))
    };
    let broken = |what: String| Error::new(format!("the header's entry for `{name}` {what}")).with_hint(AGAIN);
    let (dtype, shape, start, end) = fields().ok_or_else(|| broken("is incomplete".into()))?;
    let dtype = dtype_of(dtype).ok_or_else(|| {
        broken(format!("has the element type {dtype:?}, which is not supported"))
            .with_hint("use the weights in float32, float16 or bfloat16, as they were before they were made smaller")
    })?;
    let bytes = elements(&name, &shape)?.checked_mul(dtype.size()).map(|n| n as u64);
    if end.checked_sub(start).is_none() || end.checked_sub(start) != bytes {
        return Err(broken(format!("gives bytes {start}..{end} to {} of shape {shape:?}", dtype.name())));
    }
    Ok(Entry { name, dtype, shape, start, end })
}

fn dtype_of(name: &str) -> Option<Dtype> {
    Some(match name {
        "F64" => Dtype::F64,
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::Bf16,
        "F8_E4M3" => Dtype::F8e4m3,
        "F8_E5M2" => Dtype::F8e5m2,
        "I64" => Dtype::I64,
        "I32" => Dtype::I32,
        "I16" => Dtype::I16,
        "I8" => Dtype::I8,
        "U64" => Dtype::U64,
        "U32" => Dtype::U32,
        "U16" => Dtype::U16,
        "U8" => Dtype::U8,
        "BOOL" => Dtype::Bool,
        _ => return None,
    })
}

fn interrupted(source: std::io::Error) -> Error {
    Error::new("its bytes cannot be read").with_source(source).with_hint(AGAIN)
}

#[cfg(test)]
mod tests {
    use crate::weights::read;

    /// A file with this header and as many zero bytes behind it.
    fn file(header: &str, data: usize) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&length[..], header.as_bytes(), &vec![0; data]].concat()).unwrap();
        (folder, path)
    }

    fn error_of(header: &str, data: usize) -> String {
        let (_folder, path) = file(header, data);
        let error = read(&path).unwrap_err();
        assert!(error.hint().is_some());
        error.to_string()
    }

    #[test]
    fn reads_what_it_should() {
        let header = r#"{"__metadata__":{"a":"b"},"y":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},
            "x":{"dtype":"I32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]}}"#;
        let (_folder, path) = file(header, 8);
        let state = read(&path).unwrap();
        assert_eq!(state.metadata["a"], "b");
        assert_eq!((state.tensors["x"].shape.len(), state.tensors["x"].data.as_slice()), (0, &[0.0][..]));
        assert_eq!(state.tensors["y"].data, [0.0, 0.0]);
        assert_eq!((state.tensors["e"].shape.as_slice(), state.dtypes["y"]), (&[0, 3][..], "f16"));
    }

    #[test]
    fn hostile_headers_are_errors() {
        let one = |shape: &str, offsets: &str| {
            format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert!(error_of(&one("[2]", "[0,8]"), 4).contains("but 4 follow"), "cut short");
        assert!(error_of(&one("[2]", "[0,8]"), 9).contains("but 9 follow"), "too long");
        assert!(error_of(&one("[4]", "[0,8]"), 8).contains("gives bytes"));
        assert!(error_of(&one("[2]", "[8,0]"), 8).contains("gives bytes"));
        assert!(error_of(&one("[2]", "[8,16]"), 16).contains("overlap or leave gaps"));
        assert!(error_of(&one("[4294967296,4294967296,2]", "[0,8]"), 8).contains("impossible shape"));
        assert!(error_of(&one("[18446744073709551615]", "[0,18446744073709551615]"), 8).contains("impossible shape"));
        assert!(error_of(&one("[-1]", "[0,8]"), 8).contains("incomplete"));
        assert!(error_of(&one("[1000000000000]", "[0,4000000000000]"), 8).contains("describes 4000000000000 bytes"));
        assert!(error_of(r#"{"x":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}"#, 1).contains("F8_E8M0"));
        assert!(error_of(r#"{"x":3}"#, 0).contains("incomplete"));
        assert!(error_of("{\"x\":", 0).contains("not JSON"));
        assert!(error_of(&format!("{{\"x\":{}", "[".repeat(100_000)), 0).contains("not JSON"), "deep nesting");
        assert!(error_of("{}", 0).contains("no tensors"));
        let overlap = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        assert!(error_of(overlap, 12).contains("overlap"));
    }

    #[test]
    fn a_header_longer_than_the_file_takes_no_memory() {
        let (_folder, path) = file("{}", 0);
        for length in [3, 99_999_999, 1 << 40, u64::MAX] {
            std::fs::write(&path, [&length.to_le_bytes()[..], b"{}"].concat()).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("claims"), "{length}");
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let header = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let (_folder, path) = file(header, 8);
        let whole = std::fs::read(&path).unwrap();
        assert!(read(&path).is_ok());
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(read(&path).is_err(), "{end}");
        }
    }
}
