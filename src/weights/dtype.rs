//! Element types of foreign files, read as f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// An element type a checkpoint may hold, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    /// 8 bits, 4 of them exponent: no infinities, one NaN.
    F8e4m3,
    /// 8 bits, 5 of them exponent, as the upper half of an f16.
    F8e5m2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    /// Bytes of one element.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F8e4m3 | Self::F8e5m2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The short name, as `f16`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F8e4m3 => "f8_e4m3",
            Self::F8e5m2 => "f8_e5m2",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }

    /// The values of `bytes`, whose length is a multiple of [`Dtype::size`], rounded to f32.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F64 => map(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::F32 => map(bytes, f32::from_le_bytes),
            Self::F16 => map(bytes, f16::from_le_bytes).to_f32_vec(),
            Self::Bf16 => map(bytes, bf16::from_le_bytes).to_f32_vec(),
            Self::F8e4m3 => map(bytes, |[bits]: [u8; 1]| e4m3(bits)),
            Self::F8e5m2 => map(bytes, |[bits]: [u8; 1]| f16::from_le_bytes([0, bits]).to_f32()),
            Self::I64 => map(bytes, |b| i64::from_le_bytes(b) as f32),
            Self::I32 => map(bytes, |b| i32::from_le_bytes(b) as f32),
            Self::I16 => map(bytes, |b| f32::from(i16::from_le_bytes(b))),
            Self::I8 => map(bytes, |b| f32::from(i8::from_le_bytes(b))),
            Self::U64 => map(bytes, |b| u64::from_le_bytes(b) as f32),
            Self::U32 => map(bytes, |b| u32::from_le_bytes(b) as f32),
            Self::U16 => map(bytes, |b| f32::from(u16::from_le_bytes(b))),
            Self::U8 => map(bytes, |b: [u8; 1]| f32::from(b[0])),
            Self::Bool => map(bytes, |b: [u8; 1]| f32::from(u8::from(b[0] != 0))),
        }
    }
}

/// Sign, 4 bits of exponent with a bias of 7, 3 of fraction; all of them set is NaN.
fn e4m3(bits: u8) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2f32.powi(-6),
        _ => (1.0 + fraction) * 2f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

fn map<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| value(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_every_type() {
        let bytes = |values: &[&[u8]]| values.concat();
        assert_eq!(Dtype::F64.decode(&bytes(&[&1.5f64.to_le_bytes(), &(-2f64).to_le_bytes()])), [1.5, -2.0]);
        assert_eq!(Dtype::F32.decode(&0.1f32.to_le_bytes()), [0.1]);
        assert_eq!(Dtype::F16.decode(&[0x00, 0x3c, 0x01, 0x00]), [1.0, 2f32.powi(-24)]);
        assert_eq!(Dtype::Bf16.decode(&[0x80, 0x3f, 0x40, 0xc0]), [1.0, -3.0]);
        // As PyTorch 2.9 gives them: 1, -0.75, the largest, the smallest.
        assert_eq!(Dtype::F8e4m3.decode(&[0x38, 0xb4, 0x7e, 0x01]), [1.0, -0.75, 448.0, 2f32.powi(-9)]);
        assert!(Dtype::F8e4m3.decode(&[0x7f, 0xff]).iter().all(|value| value.is_nan()));
        assert_eq!(Dtype::F8e5m2.decode(&[0x3c, 0xba, 0x7b, 0x01]), [1.0, -0.75, 57344.0, 2f32.powi(-16)]);
        assert_eq!(Dtype::I64.decode(&(-7i64).to_le_bytes()), [-7.0]);
        assert_eq!(Dtype::I32.decode(&(1i32 << 20).to_le_bytes()), [1_048_576.0]);
        assert_eq!(Dtype::I16.decode(&(-3i16).to_le_bytes()), [-3.0]);
        assert_eq!(Dtype::I8.decode(&[0xff]), [-1.0]);
        assert_eq!(Dtype::U64.decode(&9u64.to_le_bytes()), [9.0]);
        assert_eq!(Dtype::U32.decode(&u32::MAX.to_le_bytes()), [4_294_967_296.0]);
        assert_eq!(Dtype::U16.decode(&[0xff, 0xff]), [65535.0]);
        assert_eq!(Dtype::U8.decode(&[200]), [200.0]);
        assert_eq!(Dtype::Bool.decode(&[0, 1, 2]), [0.0, 1.0, 1.0]);
    }
}
