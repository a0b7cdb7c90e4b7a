//! Means, shares, medians and Student's interval.

/// The median; the mean of the middle two where their number is even.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some((sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0)
}

/// The mean.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A part as a share of the whole; `None` of nothing.
pub(crate) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The mean over the values that exist.
pub(crate) fn mean_of_some(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, n) = values.flatten().fold((0.0, 0u32), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// Student's 95 % interval of the mean of independent, nearly normal values: mean +- t(0.975, n - 1) s / sqrt(n).
/// `None` of fewer than two.
pub(crate) fn t_interval(values: &[f64]) -> Option<[f64; 2]> {
    let (n, mean) = (values.len(), mean(values)?);
    if n < 2 {
        return None;
    }
    let half = t_975(n - 1) * deviation(values)? / (n as f64).sqrt();
    Some([mean - half, mean + half])
}

/// The standard deviation, by n - 1. `None` of fewer than two.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let (n, mean) = (values.len(), mean(values)?);
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (n > 1).then(|| (squares / (n - 1) as f64).sqrt())
}

/// The 97.5 % quantile of Student's t: tabled to 10 degrees of freedom, then by the expansion of Cornish and Fisher,
/// which is right to three digits there.
fn t_975(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281];
    const Z: f64 = 1.959_964;
    if let Some(value) = freedom.checked_sub(1).and_then(|at| TABLE.get(at)) {
        return *value;
    }
    let n = freedom as f64;
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    let third = (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / 384.0;
    Z + first / n + second / n.powi(2) + third / n.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(
            (median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[])),
            (Some(2.0), Some(2.5), None)
        );
        let [low, high] = t_interval(&[1.0, 2.0, 3.0]).unwrap();
        assert!((low - (2.0 - 4.3027 / 3f64.sqrt())).abs() < 1e-9 && (low + high - 4.0).abs() < 1e-9);
        assert_eq!((t_interval(&[1.0]), t_interval(&[])), (None, None));
        for (freedom, expected) in [(11, 2.2010), (20, 2.0860), (30, 2.0423), (100, 1.9840)] {
            assert!((t_975(freedom) - expected).abs() < 1e-3, "{freedom}: {}", t_975(freedom));
        }
    }
}
