//! Reading NumPy's `.npz`: a zip archive of `.npy` arrays, stored or deflated.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use crate::error::{Error, Result};
use crate::files;
use crate::weights::dtype::Dtype;
use crate::weights::state::{AGAIN, StateDict, WeightFormat, allowance, elements};

/// Opens the archive and reads its index.
pub(super) fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = files::open(path).map_err(|cause| Error::new("it cannot be opened").with_source(cause))?;
    ZipArchive::new(BufReader::new(file)).map_err(damaged)
}

/// Reads all arrays, under their names without `.npy`.
pub(super) fn read(path: &Path) -> Result<StateDict> {
    let mut archive = open(path)?;
    let size = std::fs::metadata(path).map_err(|cause| Error::new("it is gone").with_source(cause))?.len();
    let mut budget = allowance(size);
    let mut state = StateDict::new(WeightFormat::Npz);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(damaged)?;
        let Some(name) = entry.name().map_err(damaged)?.strip_suffix(".npy").map(str::to_owned) else { continue };
        let claimed = entry.size();
        let about = |cause: Error| Error::new(format!("the array `{name}`")).with_source(cause);
        let header = Header::read(&mut entry).map_err(about)?;
        let count = elements(&name, &header.shape)?;
        let bytes = (count as u64).saturating_mul(header.dtype.size() as u64);
        if bytes > claimed {
            return Err(about(
                Error::new(format!("has the shape {:?}, more than its {claimed} bytes", header.shape)).with_hint(AGAIN),
            ));
        }
        budget = budget.checked_sub(bytes.max(count as u64 * 4)).ok_or_else(|| {
            about(Error::new(format!("goes beyond {MAX} times the file's {size} bytes", MAX = super::MAX_EXPANSION))
                .with_hint("the file was made to exhaust memory, or is mostly zeros: save it uncompressed, with numpy.savez"))
        })?;
        let mut data = Vec::new();
        entry.by_ref().take(bytes).read_to_end(&mut data).map_err(|cause| about(damaged(cause)))?;
        if data.len() as u64 != bytes {
            return Err(about(Error::new(format!("ends after {} of {bytes} bytes", data.len())).with_hint(AGAIN)));
        }
        // Reading to the end of the entry is what verifies its checksum.
        std::io::copy(&mut entry.take(1), &mut std::io::sink()).map_err(|cause| about(damaged(cause)))?;
        state.insert(name.clone(), header.shape.clone(), header.dtype, &data);
        if header.fortran_order
            && let Some(tensor) = state.tensors.get_mut(&name)
        {
            tensor.data = row_major(&tensor.data, &tensor.shape);
        }
    }
    Ok(state)
}

/// What a `.npy` says about its bytes.
struct Header {
    dtype: Dtype,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn read(entry: &mut impl Read) -> Result<Self> {
        let mut lead = [0; 10];
        entry.read_exact(&mut lead).map_err(damaged)?;
        let [0x93, b'N', b'U', b'M', b'P', b'Y', version, _, low, high] = lead else {
            return Err(Error::new("is not in NumPy's format").with_hint(AGAIN));
        };
        let mut length = u64::from(u16::from_le_bytes([low, high]));
        if version > 1 {
            let mut upper = [0; 2];
            entry.read_exact(&mut upper).map_err(damaged)?;
            length |= u64::from(u16::from_le_bytes(upper)) << 16;
        }
        if length > 1 << 20 {
            return Err(Error::new(format!("has a header of {length} bytes")).with_hint(AGAIN));
        }
        let mut text = Vec::new();
        entry.by_ref().take(length).read_to_end(&mut text).map_err(damaged)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Self::parse(&text)
            .ok_or_else(|| Error::new(format!("has the unreadable header {text:.80}")).with_hint(AGAIN))?
    }

    /// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`; none where it is not of that form.
    fn parse(text: &str) -> Option<Result<Self>> {
        let after = |key: &str| text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        let descr = after("descr")?;
        let fortran_order = after("fortran_order")?.starts_with("True");
        let shape = after("shape")?.strip_prefix('(')?.split_once(')')?.0;
        let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
        let shape = extents.map(|extent| extent.parse().ok()).collect::<Option<Vec<usize>>>()?;
        let Some(descr) = descr.strip_prefix('\'').and_then(|rest| Some(rest.split_once('\'')?.0)) else {
            return Some(Err(unsupported("a record")));
        };
        let dtype = match descr {
            "<f8" => Dtype::F64,
            "<f4" => Dtype::F32,
            "<f2" => Dtype::F16,
            "<i8" => Dtype::I64,
            "<i4" => Dtype::I32,
            "<i2" => Dtype::I16,
            "|i1" => Dtype::I8,
            "<u8" => Dtype::U64,
            "<u4" => Dtype::U32,
            "<u2" => Dtype::U16,
            "|u1" => Dtype::U8,
            "|b1" => Dtype::Bool,
            other => return Some(Err(unsupported(other))),
        };
        Some(Ok(Self { dtype, fortran_order, shape }))
    }
}

fn unsupported(descr: &str) -> Error {
    let hint = match descr {
        "|O" => "arrays of Python objects are pickles, which are not run: save the arrays themselves, as float32",
        _ => "save the array as little-endian float32, float16 or float64",
    };
    Error::new(format!("has the element type `{descr}`, which is not supported")).with_hint(hint)
}

/// Reorders values whose first index runs fastest.
fn row_major(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut index = vec![0; shape.len()];
    let strides: Vec<usize> = shape.iter().scan(1, |stride, n| Some(std::mem::replace(stride, *stride * n))).collect();
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        ordered.push(values[index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for (i, n) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *n {
                break;
            }
            *i = 0;
        }
    }
    ordered
}

fn damaged(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new("the archive is damaged").with_source(source).with_hint(AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    /// The bytes of a `.npy`.
    fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}");
        while !(header.len() + 11).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn archive(entries: &[(&str, Vec<u8>)], method: zip::CompressionMethod) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.npz");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in entries {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        (folder, path)
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn reads_stored_and_deflated_in_both_orders() {
        for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
            let six = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            let entries = [
                ("c.npy", npy("'<f4'", "False", "(2, 3)", &six)),
                ("f.npy", npy("'<f4'", "True", "(2, 3)", &six)),
                ("h.npy", npy("'<f2'", "False", "(1,)", &[0, 0x3c])),
                ("s.npy", npy("'<i8'", "False", "()", &7i64.to_le_bytes())),
                ("readme.txt", b"x".to_vec()),
            ];
            let (_folder, path) = archive(&entries, method);
            let state = super::super::read(&path).unwrap();
            assert_eq!(state.tensors["c"].data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            assert_eq!(state.tensors["f"].data, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
            assert_eq!(
                (state.tensors["h"].data.as_slice(), state.tensors["h"].shape.as_slice()),
                (&[1.0][..], &[1][..])
            );
            assert_eq!((state.tensors["s"].data.as_slice(), state.tensors.len()), (&[7.0][..], 4));
        }
    }

    #[test]
    fn hostile_arrays_are_errors() {
        let cases = [
            (npy("'|O'", "False", "(1,)", &[0; 8]), "`|O`"),
            (npy("'>f4'", "False", "(1,)", &[0; 4]), "`>f4`"),
            (npy("[('a', '<f4')]", "False", "(1,)", &[0; 4]), "a record"),
            (npy("'<f4'", "False", "(9,)", &[0; 4]), "ends after 4 of 36"),
            (npy("'<f4'", "False", "(1000000000000,)", &[0; 4]), "more than its"),
            (npy("'<f4'", "False", "(4294967296, 4294967296, 4294967296)", &[0; 4]), "impossible shape"),
            (npy("'<f4'", "False", "(-1,)", &[0; 4]), "unreadable header"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "header of 4294967295 bytes"),
            (b"\x93NUM".to_vec(), "damaged"),
            (b"not an array".to_vec(), "NumPy's format"),
        ];
        for (bytes, expected) in cases {
            let (_folder, path) = archive(&[("x.npy", bytes)], zip::CompressionMethod::Stored);
            let error = super::super::read(&path).unwrap_err();
            assert!(error.to_string().contains(expected) && error.to_string().contains("w.npz"), "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn a_zip_bomb_is_refused_before_it_inflates() {
        let zeros = npy("'<f4'", "False", "(20000000,)", &vec![0; 80_000_000]);
        let (_folder, path) = archive(&[("x.npy", zeros)], zip::CompressionMethod::Deflated);
        assert!(std::fs::metadata(&path).unwrap().len() < 200_000);
        let error = super::super::read(&path).unwrap_err().to_string();
        assert!(error.contains("goes beyond 16 times"), "{error}");
    }

    #[test]
    fn every_truncation_is_an_error_and_flipped_bytes_are_noticed() {
        let entries = [("x.npy", npy("'<f4'", "False", "(2,)", &floats(&[1.0, 2.0])))];
        let (_folder, path) = archive(&entries, zip::CompressionMethod::Stored);
        let whole = std::fs::read(&path).unwrap();
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(super::super::read(&path).is_err(), "{end}");
        }
        let mut flipped = whole.clone();
        let data = whole.windows(8).position(|window| window == floats(&[1.0, 2.0])).unwrap();
        flipped[data] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(super::super::read(&path).unwrap_err().to_string().contains("damaged"));
    }
}
