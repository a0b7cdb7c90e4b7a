//! Whether a JPEG file is whole: its decoder fills what is missing.

/// Whether the JPEG's segments and scans run on to the end-of-image marker.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // To the next marker: within a scan, 0xff is followed by 0 (stuffing) or a restart number.
        while at + 1 < bytes.len() && (bytes[at] != 0xff || matches!(bytes[at + 1], 0 | 0xff | 0xd0..=0xd7)) {
            at += 1;
        }
        match bytes.get(at + 1) {
            None => return false,
            Some(0xd9) => return true,
            Some(0x01 | 0xd8) => at += 2,
            Some(_) => match bytes.get(at + 2..at + 4) {
                Some(length) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
}
