//! Checks of a pickle before and after it is parsed: its length, and the code that it would have run.

use std::io::{self, BufRead, Read};
use std::path::Path;

use pytorch_reader::PickleValue;

use crate::error::{Error, Result};
use crate::files;
use crate::weights::npz;
use crate::weights::state::{AGAIN, WeightFormat, allowance};

/// A pickle describes tensors, some hundred bytes each; parsed, it takes up to a hundred times its length.
const MAX_PICKLE: u64 = 4 << 20;
/// How many times its size a pickle may inflate to: names repeat, but no more than that.
const DEFLATED: u64 = 32;
/// Inflated pickles up to this length do no harm.
const SMALL: u64 = 64 << 10;

/// Refuses a file whose pickles are longer than any description of tensors.
pub(super) fn check_length(path: &Path, format: WeightFormat) -> Result<()> {
    if format == WeightFormat::PytorchZip { check_zip(path) } else { check_legacy(path) }
}

/// What entries are said to inflate to is held against the file's size, and what they do inflate to against what is
/// said.
fn check_zip(path: &Path) -> Result<()> {
    let broken = |cause| Error::new("its index is broken").with_source(cause).with_hint(AGAIN);
    let size = std::fs::metadata(path).map_err(|cause| Error::new("it is gone").with_source(cause))?.len();
    let mut archive = npz::open(path)?;
    let mut budget = allowance(size);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(broken)?;
        let (claimed, packed) = (entry.size(), entry.compressed_size());
        let pickle = entry.name_raw().ends_with(b"data.pkl");
        let stored = entry.compression() == zip::CompressionMethod::Stored;
        drop(entry);
        if pickle && (claimed > MAX_PICKLE || claimed > DEFLATED.saturating_mul(packed).max(SMALL)) {
            return Err(too_long());
        }
        if stored {
            continue;
        }
        budget = budget.checked_sub(claimed).ok_or_else(|| {
            Error::new(format!(
                "its entries claim to inflate beyond {} times the file's {size} bytes",
                super::MAX_EXPANSION
            ))
            .with_hint("the file was made to exhaust memory: get it again from its source")
        })?;
        let mut inflated = archive.by_index(index).map_err(broken)?.take(claimed.saturating_add(1));
        let found = io::copy(&mut inflated, &mut io::sink())
            .map_err(|cause| Error::new("an entry cannot be inflated").with_source(cause).with_hint(AGAIN))?;
        if found != claimed {
            return Err(Error::new(format!("an entry inflates to {found} bytes or more, and {claimed} are claimed"))
                .with_hint(AGAIN));
        }
    }
    Ok(())
}

/// The old container is five pickles in a row, and only their opcodes tell where they end.
fn check_legacy(path: &Path) -> Result<()> {
    let file = files::open(path).map_err(|cause| Error::new("it cannot be opened").with_source(cause))?;
    let mut limited = io::BufReader::new(file).take(MAX_PICKLE);
    for _ in 0..5 {
        if let Err(cause) = skip_pickle(&mut limited) {
            let ended = cause.kind() == io::ErrorKind::UnexpectedEof && limited.limit() == 0;
            return Err(if ended {
                too_long()
            } else {
                Error::new("its pickles are damaged").with_source(cause).with_hint(AGAIN)
            });
        }
    }
    Ok(())
}

fn too_long() -> Error {
    Error::new(format!("what its pickle describes is above the limit of {MAX_PICKLE} bytes"))
        .with_hint("save only the weights: torch.save(model.state_dict(), …)")
}

/// Reads past one pickle (protocols 0 to 5) without keeping anything of it.
fn skip_pickle(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        match byte(reader)? {
            b'.' => return Ok(()),
            b'K' | b'h' | b'q' | 0x80 | 0x82 => skip(reader, 1)?,
            b'M' | 0x83 => skip(reader, 2)?,
            b'J' | b'j' | b'r' | 0x84 => skip(reader, 4)?,
            b'G' | 0x95 => skip(reader, 8)?,
            b'U' | b'C' | 0x8a | 0x8c => skip_counted::<1>(reader)?,
            b'T' | b'X' | b'B' | 0x8b => skip_counted::<4>(reader)?,
            0x8d | 0x8e | 0x96 => skip_counted::<8>(reader)?,
            b'F' | b'I' | b'L' | b'S' | b'V' | b'P' | b'g' | b'p' => skip_line(reader)?,
            b'c' | b'i' => {
                skip_line(reader)?;
                skip_line(reader)?;
            }
            // The others stand alone; the parser refuses those that do not exist.
            _ => {}
        }
    }
}

fn byte(reader: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn skip(reader: &mut impl Read, count: u64) -> io::Result<()> {
    let skipped = io::copy(&mut reader.take(count), &mut io::sink())?;
    if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn skip_counted<const N: usize>(reader: &mut impl Read) -> io::Result<()> {
    let mut count = [0; 8];
    reader.read_exact(&mut count[..N])?;
    skip(reader, u64::from_le_bytes(count))
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    while byte(reader)? != b'\n' {}
    Ok(())
}

/// Modules of Python that no weights need, and that attacks call.
const HARMFUL: [&str; 14] = [
    "os",
    "posix",
    "nt",
    "subprocess",
    "builtins",
    "__builtin__",
    "sys",
    "shutil",
    "socket",
    "runpy",
    "pty",
    "importlib",
    "webbrowser",
    "ctypes",
];

/// Builtins that are plain data.
const HARMLESS: [&str; 18] = [
    "list",
    "dict",
    "tuple",
    "bool",
    "bytes",
    "type",
    "NoneType",
    "set",
    "frozenset",
    "slice",
    "range",
    "complex",
    "bytearray",
    "object",
    "int",
    "float",
    "str",
    "getattr",
];

/// The first call to a function that does more than make data, where one is left in the parsed values.
pub(super) fn harmful(value: &PickleValue) -> Option<&str> {
    match value {
        PickleValue::List(items) => items.iter().find_map(harmful),
        PickleValue::Dict(entries) => entries.values().find_map(harmful),
        PickleValue::Unsupported(name) => {
            let (module, function) = name.split_once('.')?;
            let data = module.contains("builtin") && HARMLESS.contains(&function);
            (HARMFUL.contains(&module) && !data).then_some(name)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_end_of_a_pickle() {
        let pickles: [&[u8]; 5] = [
            b"\x80\x02K\x2eX\x03\x00\x00\x00...q\x00.",
            b"\x80\x04\x95\x03\x00\x00\x00\x00\x00\x00\x00\x8c\x01.\x94.",
            b"(lp0\nI46\naS'.'\np1\na.",
            b"c.os\n.system\n\x8a\x02..G........U\x02..\x85R.",
            b"\x8d\x01\x00\x00\x00\x00\x00\x00\x00.M..J....].",
        ];
        for pickle in pickles {
            let mut reader = io::Cursor::new([pickle, b"rest"].concat());
            skip_pickle(&mut reader).unwrap();
            assert_eq!(reader.position(), pickle.len() as u64, "{pickle:?}");
            for end in 0..pickle.len() {
                assert!(skip_pickle(&mut io::Cursor::new(&pickle[..end])).is_err());
            }
        }
        let endless = [&b"\x8e"[..], &u64::MAX.to_le_bytes()].concat();
        assert!(skip_pickle(&mut io::Cursor::new(endless)).is_err());
    }

    #[test]
    fn data_is_not_taken_for_harm() {
        let unsupported = |name: &str| PickleValue::List(vec![PickleValue::Unsupported(name.to_owned())]);
        for name in [
            "torch.FloatTensor",
            "builtins.set",
            "builtins.list",
            "__builtin__.dict",
            "numpy.core.multiarray.scalar",
            "argparse.Namespace",
        ] {
            assert_eq!(harmful(&unsupported(name)), None);
        }
        for name in ["posix.system", "builtins.eval", "os.popen", "subprocess.Popen"] {
            assert_eq!(harmful(&unsupported(name)), Some(name));
        }
    }
}
