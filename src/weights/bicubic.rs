//! Bicubic resizing on the CPU, for tables that belong to a grid of patches.

/// Resizes planes `[planes, from.0, from.1]` to `[planes, to.0, to.1]`, as `torch.nn.functional.interpolate` does with
/// `mode="bicubic"`: a = −0.75, samples beyond the edge repeat it, no antialiasing. The sums are in f64.
///
/// # Panics
///
/// If the values do not fill the planes, or a grid is empty.
pub fn bicubic(
    values: &[f32],
    planes: usize,
    from: (usize, usize),
    to: (usize, usize),
    align_corners: bool,
) -> Vec<f32> {
    assert!(from.0 * from.1 * to.0 * to.1 > 0, "an empty grid");
    assert_eq!(values.len(), planes * from.0 * from.1, "the values fill the planes");
    let rows: Vec<Taps> = (0..to.0).map(|y| taps(y, from.0, to.0, align_corners)).collect();
    let columns: Vec<Taps> = (0..to.1).map(|x| taps(x, from.1, to.1, align_corners)).collect();
    let mut resized = Vec::with_capacity(planes * to.0 * to.1);
    let mut wide = vec![0f64; from.0 * to.1];
    for plane in values.chunks_exact(from.0 * from.1) {
        for (y, row) in plane.chunks_exact(from.1).enumerate() {
            for (x, tap) in columns.iter().enumerate() {
                wide[y * to.1 + x] = tap.iter().map(|(i, weight)| weight * f64::from(row[*i])).sum();
            }
        }
        for tap in &rows {
            for x in 0..to.1 {
                resized.push(tap.iter().map(|(i, weight)| weight * wide[i * to.1 + x]).sum::<f64>() as f32);
            }
        }
    }
    resized
}

/// The four source indices of one output index, and their weights.
type Taps = [(usize, f64); 4];

fn taps(index: usize, from: usize, to: usize, align_corners: bool) -> Taps {
    let index = index as f64;
    let source = match align_corners {
        true if to > 1 => index * (from - 1) as f64 / (to - 1) as f64,
        true => 0.0,
        false => (index + 0.5) * from as f64 / to as f64 - 0.5,
    };
    let floor = source.floor();
    let t = source - floor;
    let weights = [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)];
    std::array::from_fn(|k| ((floor as i64 + k as i64 - 1).clamp(0, from as i64 - 1) as usize, weights[k]))
}

const A: f64 = -0.75;

/// The kernel for distances up to 1.
fn near(x: f64) -> f64 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// The kernel for distances from 1 to 2.
fn far(x: f64) -> f64 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::read;

    #[test]
    fn agrees_with_torch() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/structtoken/pipeline/interpolate.safetensors");
        let golden = read(path.as_ref()).unwrap();
        let x = &golden.tensors["x"];
        let mut seen = 0;
        for (name, expected) in golden.tensors.iter().filter(|(name, _)| name.starts_with("bicubic.")) {
            let to = (expected.shape[2], expected.shape[3]);
            let ours = bicubic(&x.data, 3, (x.shape[2], x.shape[3]), to, name.contains("ac1"));
            let worst = ours.iter().zip(&expected.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-6, "{name}: {worst}");
            seen += 1;
        }
        assert_eq!(seen, 12);
    }

    #[test]
    fn keeps_constants_and_its_own_size() {
        let ramp: Vec<f32> = (0..24).map(|i| i as f32 * 0.37).collect();
        assert_eq!(bicubic(&ramp, 2, (3, 4), (3, 4), false), ramp);
        assert_eq!(bicubic(&ramp, 2, (3, 4), (3, 4), true), ramp);
        assert!(bicubic(&[2.5; 6], 1, (2, 3), (7, 5), false).iter().all(|v| (v - 2.5).abs() < 1e-6));
        assert_eq!(bicubic(&[1.0], 1, (1, 1), (2, 2), true), [1.0; 4]);
    }
}
