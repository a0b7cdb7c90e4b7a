//! Checksums of what is read, a part at a time.

use std::io::{self, ErrorKind, Read};

use sha2::{Digest, Sha256};

/// CRC-32 of all that can be read.
pub(crate) fn crc32(from: impl Read) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    each_part(from, |part| hasher.update(part))?;
    Ok(hasher.finalize())
}

/// CRC-32C of all that can be read.
pub(crate) fn crc32c(from: impl Read) -> io::Result<u32> {
    let mut sum = 0;
    each_part(from, |part| sum = crc32c::crc32c_append(sum, part))?;
    Ok(sum)
}

/// SHA-256 of all that can be read, in lower-case hexadecimal digits.
pub(crate) fn sha256(from: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    each_part(from, |part| hasher.update(part))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn each_part(mut from: impl Read, mut add: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => add(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..200_000u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
        assert_eq!(crc32(&bytes[..]).unwrap(), crc32fast::hash(&bytes));
        assert_eq!(crc32c(&bytes[..]).unwrap(), crc32c::crc32c(&bytes));
    }
}
