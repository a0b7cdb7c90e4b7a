//! Files of earlier states of this program, brought into today's form when they are read.

use crate::weights::state::{HostTensor, StateDict};

/// The most classes that labels can tell apart, and channels that a decoder may have: the product of two long and thin
/// matrices would be far larger than the file.
const LARGEST: [usize; 2] = [256, 1 << 14];

/// Once, a StructToken with `prior = "linear"` classified the features after `dec_proj`, by `decoder.prior`. Today
/// `decoder.conv_seg` classifies them as they are: `P (D x + d) + p = (P D) x + (P d + p)`, the same function. A file
/// whose shapes do not fit is left as it is.
pub(super) fn update(state: &mut StateDict) {
    let Some((weight, bias)) = classifier(state) else { return };
    for (end, tensor) in [("weight", weight), ("bias", bias)] {
        let (before, now) = (format!("decoder.prior.{end}"), format!("decoder.conv_seg.{end}"));
        state.tensors.remove(&before);
        if let Some(dtype) = state.dtypes.remove(&before) {
            state.dtypes.insert(now.clone(), dtype);
        }
        state.tensors.insert(now, tensor);
    }
}

/// The weight and the bias of what stands for `decoder.prior` after `decoder.dec_proj`.
fn classifier(state: &StateDict) -> Option<(HostTensor, HostTensor)> {
    let tensor = |name: &str| state.tensors.get(&format!("decoder.{name}"));
    let matrix = |name: &str| {
        let tensor = tensor(name)?;
        let &[rows, columns, 1, 1] = tensor.shape.as_slice() else { return None };
        (rows * columns > 0 && tensor.data.len() == rows * columns).then_some((tensor, columns))
    };
    let vector = |name: &str, len| tensor(name).filter(|tensor| tensor.shape == [len] && tensor.data.len() == len);
    let (prior, channels) = matrix("prior.weight")?;
    let (projection, inputs) = matrix("dec_proj.weight")?;
    let classes = prior.shape[0];
    if classes > LARGEST[0] || channels.max(inputs) > LARGEST[1] {
        return None;
    }
    let moved = vector("dec_proj.bias", channels).filter(|_| projection.shape[0] == channels)?;
    let own = vector("prior.bias", classes)?;
    let of = |row: &[f32], column: &mut dyn Iterator<Item = f32>| -> f64 {
        row.iter().zip(column).map(|(a, b)| f64::from(*a) * f64::from(b)).sum()
    };
    let rows = || prior.data.chunks_exact(channels);
    let column = |at: usize| projection.data[at..].iter().step_by(inputs).copied();
    let weight = rows().flat_map(|row| (0..inputs).map(move |at| of(row, &mut column(at)) as f32)).collect();
    let bias =
        rows().zip(&own.data).map(|(row, own)| (of(row, &mut moved.data.iter().copied()) + f64::from(*own)) as f32);
    let bias = HostTensor { shape: vec![classes], data: bias.collect() };
    Some((HostTensor { shape: vec![classes, inputs, 1, 1], data: weight }, bias))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(prior: [usize; 4], projection: [usize; 4]) -> StateDict {
        let mut state = StateDict::default();
        let mut put = |name: &str, shape: &[usize]| {
            let data = (0..shape.iter().product()).map(|at| at as f32 - 2.0).collect();
            state.tensors.insert(format!("decoder.{name}"), HostTensor { shape: shape.to_vec(), data });
        };
        put("prior.weight", &prior);
        put("prior.bias", &prior[..1]);
        put("dec_proj.weight", &projection);
        put("dec_proj.bias", &projection[..1]);
        state.dtypes.insert("decoder.prior.weight".to_owned(), "f16");
        state
    }

    #[test]
    fn a_classifier_of_projected_features_becomes_one_of_the_features() {
        let mut state = state([2, 3, 1, 1], [3, 1, 1, 1]);
        update(&mut state);
        let of = |name: &str| &state.tensors[name];
        // P = [[-2, -1, 0], [1, 2, 3]], D = [-2, -1, 0], d = D, p = [-2, -1].
        assert_eq!(
            (&of("decoder.conv_seg.weight").data, &of("decoder.conv_seg.weight").shape),
            (&vec![5.0, -4.0], &vec![2, 1, 1, 1])
        );
        assert_eq!(
            (&of("decoder.conv_seg.bias").data, &of("decoder.conv_seg.bias").shape),
            (&vec![3.0, -5.0], &vec![2])
        );
        assert!(
            !state.tensors.keys().any(|name| name.contains("prior")) && of("decoder.dec_proj.weight").data.len() == 3
        );
        assert_eq!(state.dtypes["decoder.conv_seg.weight"], "f16");
    }

    #[test]
    fn shapes_that_do_not_fit_are_left_to_be_reported() {
        for (prior, projection) in [
            ([2, 3, 1, 1], [4, 1, 1, 1]),
            ([2, 3, 3, 1], [3, 1, 1, 1]),
            ([0, 3, 1, 1], [3, 1, 1, 1]),
            ([257, 1, 1, 1], [1, 2, 1, 1]),
            ([2, 1, 1, 1], [1, (1 << 14) + 1, 1, 1]),
        ] {
            let mut state = state(prior, projection);
            let before = state.clone();
            update(&mut state);
            assert_eq!(state, before);
        }
    }
}
