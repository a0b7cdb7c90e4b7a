use burn::tensor::activation::softmax;

use super::*;
use crate::infer::toy::{Toy, noise, values};
use crate::layers::resize::{Mode, resize};

fn config() -> InferConfig {
    let padding = Padding::Stretch;
    InferConfig { crop: [12, 16], stride: [8, 10], windows_per_batch: 3, padding, ..InferConfig::default() }
}

fn distance(a: Tensor<4>, b: Tensor<4>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).abs().max().into_scalar()
}

fn upsampled(network: &dyn Network, images: Tensor<4>) -> Tensor<4> {
    let [_, _, h, w] = images.dims();
    resize(network.predict_logits(images).scores().permute([0, 3, 1, 2]), (h, w), Mode::Bilinear, false)
}

/// Sliding as it is described: pad, add, count, divide.
fn slide_by_the_book(network: &dyn Network, images: Tensor<4>, crop: [usize; 2], stride: [usize; 2]) -> Tensor<4> {
    let [b, _, h, w] = images.dims();
    let grids = |size: usize, i: usize| (size + stride[i] - 1).saturating_sub(crop[i]) / stride[i] + 1;
    let mut sum = Tensor::<4>::zeros([b, network.classes(), h, w], &images.device());
    let mut count = Tensor::<4>::zeros([1, 1, h, w], &images.device());
    for (i, j) in (0..grids(h, 0)).flat_map(|i| (0..grids(w, 1)).map(move |j| (i, j))) {
        let (y2, x2) = ((i * stride[0] + crop[0]).min(h), (j * stride[1] + crop[1]).min(w));
        let (y1, x1) = (y2.saturating_sub(crop[0]), x2.saturating_sub(crop[1]));
        let logits = upsampled(network, images.clone().slice([0..b, 0..3, y1..y2, x1..x2]));
        let place = [0..b, 0..network.classes(), y1..y2, x1..x2];
        sum = sum.clone().slice_assign(place.clone(), sum.slice(place) + logits);
        let place = [0..1, 0..1, y1..y2, x1..x2];
        count = count.clone().slice_assign(place.clone(), count.slice(place) + 1.0);
    }
    sum / count
}

#[test]
fn whole_and_slide_match_the_definition() {
    let toy = Toy::new(5);
    for (h, w) in [(12, 16), (30, 47), (9, 40), (20, 16), (5, 7)] {
        let images = noise(1, [2, 3, h, w]);
        assert!(distance(whole_logits(&toy, images.clone(), Padding::Stretch), upsampled(&toy, images.clone())) < 1e-5);
        let slide = slide_logits(&toy, images.clone(), [12, 16], [8, 10], Padding::Stretch);
        assert!(distance(slide, slide_by_the_book(&toy, images, [12, 16], [8, 10])) < 1e-5, "{h} x {w}");
    }
}

/// What is at a place of a padded image is found there: a bright square keeps its centre.
#[test]
fn exact_padding_moves_nothing() {
    struct Bright;
    impl Network for Bright {
        fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
            let [b, _, h, w] = images.dims();
            let (gh, gw) = (h.div_ceil(8), w.div_ceil(8));
            let padded = Tensor::zeros([b, 1, gh * 8, gw * 8], &images.device());
            let padded = padded.slice_assign([0..b, 0..1, 0..h, 0..w], images.narrow(1, 0, 1));
            let cells = padded.reshape([b, 1, gh, 8, gw, 8]).mean_dim(5).mean_dim(3).reshape([b, gh, gw, 1]);
            Tensor::cat(vec![cells.clone().neg() + 0.5, cells - 0.5], 3).into() // [b, gh, gw, 2]
        }
        fn classes(&self) -> usize {
            2
        }
        fn padded(&self, side: usize) -> usize {
            side.next_multiple_of(8)
        }
    }
    let mut values = vec![0.0; 3 * 57 * 41];
    for (y, x) in (32..48).flat_map(|y| (16..32).map(move |x| (y, x))) {
        values[y * 41 + x] = 1.0;
    }
    let images = Tensor::<4>::from_data(TensorData::new(values, [1, 3, 57, 41]), &Device::flex());
    let views = [View::of_tensor(images, false)];
    let center = |padding, on_cpu| {
        let config = InferConfig { mode: InferMode::Whole, padding, ..config() };
        let ids = labels_by(&Bright, &views, (57, 41), &config, on_cpu, &mut |_| {}).unwrap().remove(0).ids;
        let found: Vec<usize> = (0..ids.len()).filter(|at| ids[*at] == 1).collect();
        let mean = |of: fn(usize) -> usize| found.iter().map(|at| of(*at)).sum::<usize>() as f64 / found.len() as f64;
        (mean(|at| at / 41), mean(|at| at % 41))
    };
    for on_cpu in [false, true] {
        assert_eq!(center(Padding::Exact, on_cpu), (39.5, 23.5));
        assert!(center(Padding::Stretch, on_cpu).1 < 22.0, "mmsegmentation's is off by the padding's share");
    }
}

#[test]
fn no_batch_is_larger_than_asked() {
    let toy = Toy::new(3);
    let _ = slide_logits(&toy, noise(2, [1, 3, 60, 60]), [12, 16], [8, 10], Padding::Exact);
    assert!(toy.largest_batch() <= 8 && toy.images_seen() == 7 * 6, "{} {}", toy.largest_batch(), toy.images_seen());
}

#[test]
fn views_are_averaged_as_probabilities_at_the_output_size() {
    let (toy, size, config) = (Toy::new(4), (30, 45), config());
    let views: Vec<View> = [(23, 34), (30, 45), (38, 57)]
        .iter()
        .flat_map(|(h, w)| {
            let images = noise(*h as u64, [1, 3, *h, *w]);
            [View::of_tensor(images.clone(), false), View::of_tensor(images.flip([3]), true)]
        })
        .collect();
    let each = views.iter().map(|view| {
        let logits = slide_by_the_book(&toy, view.whole(), config.crop, config.stride);
        let p = softmax(resize(logits, size, Mode::Bilinear, false), 1);
        if view.is_flipped() { p.flip([3]) } else { p }
    });
    let expected = each.reduce(|a, b| a + b).unwrap() / 6.0;
    for on_cpu in [false, true] {
        let ours = probabilities_by(&toy, &views, size, &config, on_cpu).unwrap();
        assert!(distance(ours, expected.clone()) < 1e-6);
    }
    let ids: Vec<u8> = expected.argmax(1).try_into_vec_as::<i32>().unwrap().iter().map(|id| *id as u8).collect();
    for on_cpu in [false, true] {
        assert_eq!(labels_by(&toy, &views, size, &config, on_cpu, &mut |_| {}).unwrap()[0].ids, ids);
    }
}

#[test]
fn bands_of_rows_give_the_labels_of_the_plain_sum() {
    let toy = Toy::new(6);
    // 0 MB: one row at a time.
    let banded = InferConfig { logits_mb: 0, ..config() };
    for (input, size) in [((61, 50), (61, 50)), ((40, 33), (100, 90)), ((90, 70), (31, 20))] {
        let images = noise(9, [2, 3, input.0, input.1]);
        let views = [View::of_tensor(images, false)];
        assert_eq!(MultiViewLogits::new(&toy, &views, size, &banded).bands().len(), size.0);
        assert_eq!(MultiViewLogits::new(&toy, &views, size, &config()).bands().len(), 1);
        let plain = labels_by(&toy, &views, size, &config(), false, &mut |_| {}).unwrap();
        assert_eq!(plain.len(), 2);
        assert_ne!(plain[0], plain[1]);
        for on_cpu in [false, true] {
            assert_eq!(labels_by(&toy, &views, size, &banded, on_cpu, &mut |_| {}).unwrap(), plain);
            assert_eq!(labels_by(&toy, &views, size, &config(), on_cpu, &mut |_| {}).unwrap(), plain);
        }
        let by = |config: &InferConfig, on_cpu| probabilities_by(&toy, &views, size, config, on_cpu).unwrap();
        let plain = by(&config(), false);
        for other in [by(&banded, false), by(&banded, true), by(&config(), true)] {
            assert!(distance(other, plain.clone()) < 1e-6);
        }
    }
}

#[test]
fn ties_go_to_the_lowest_class() {
    struct Flat;
    impl Network for Flat {
        fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
            Tensor::zeros([images.dims()[0], 2, 2, 40], &images.device()).into()
        }
        fn classes(&self) -> usize {
            40
        }
        fn padded(&self, side: usize) -> usize {
            side.next_multiple_of(4)
        }
    }
    let views = [View::of_tensor(noise(1, [1, 3, 8, 8]), false)];
    for on_cpu in [false, true] {
        assert_eq!(labels_by(&Flat, &views, (8, 8), &config(), on_cpu, &mut |_| {}).unwrap()[0].ids, [0; 64]);
    }
    assert!(values(probabilities(&Flat, &views, (8, 8), &config()).unwrap()).iter().all(|p| (p - 0.025).abs() < 1e-6));
}

#[test]
fn a_mirrored_view_answers_for_the_image_as_it_is() {
    let toy = Toy::new(4);
    let images = noise(5, [1, 3, 24, 32]);
    let views = [View::of_tensor(images.clone().flip([3]), true)];
    let whole = InferConfig { mode: crate::infer::InferMode::Whole, ..config() };
    let mirrored = probabilities(&toy, &views, (24, 32), &whole).unwrap();
    let straight = probabilities(&toy, &[View::of_tensor(images, false)], (24, 32), &whole).unwrap();
    // Patches of 4 divide both sides, and the toy does not know left from right.
    assert!(distance(mirrored, straight) < 1e-5);
}

/// Masks that vote: both ways to read them agree with the definition, over windows, scales and flips.
#[test]
fn votes_are_added_as_they_are() {
    struct Voting(Toy);
    impl Network for Voting {
        fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
            let votes = TensorData::new((0..30).map(|i| (i * 7 % 11) as f32 / 11.0).collect::<Vec<_>>(), [1, 6, 5]);
            let [b, ..] = images.dims();
            let votes = Tensor::<3>::from_data(votes, &images.device()).expand([b, 6, 5]);
            SegLogits { maps: self.0.predict_logits(images).maps, votes: Some(votes) }
        }
        fn classes(&self) -> usize {
            5
        }
        fn padded(&self, side: usize) -> usize {
            self.0.padded(side)
        }
    }
    let (network, size) = (Voting(Toy::new(6)), (29, 43));
    let whole = InferConfig { mode: InferMode::Whole, ..config() };
    let images = noise(3, [2, 3, 29, 43]);
    let one = [View::of_tensor(images.clone(), false)];
    let answer = network.predict_logits(images.clone());
    let maps = resize(answer.maps.permute([0, 3, 1, 2]), size, Mode::Bilinear, false).permute([0, 2, 3, 1]);
    let expected = SegLogits { maps, votes: answer.votes }.scores().permute([0, 3, 1, 2]);
    let expected = expected.clone() / expected.sum_dim(1);
    for on_cpu in [false, true] {
        let ours = probabilities_by(&network, &one, size, &whole, on_cpu).unwrap();
        assert!(distance(ours, expected.clone()) < 1e-6);
    }
    let many = [
        View::of_tensor(noise(4, [2, 3, 40, 60]), true),
        View::of_tensor(images.clone(), false),
        View::of_tensor(images.flip([3]), true),
    ];
    for config in [config(), InferConfig { logits_mb: 0, ..config() }, whole] {
        for views in [&many[..], &many[1..2]] {
            let by = |on_cpu| probabilities_by(&network, views, size, &config, on_cpu).unwrap();
            assert!(distance(by(false), by(true)) < 1e-6);
            let labels = |on_cpu| labels_by(&network, views, size, &config, on_cpu, &mut |_| {}).unwrap();
            assert_eq!(labels(false), labels(true));
            let best = by(true).argmax(1).try_into_vec_as::<i32>().unwrap();
            let best: Vec<u8> = best.into_iter().map(|id| id as u8).collect();
            assert_eq!(labels(true).into_iter().flat_map(|map| map.ids).collect::<Vec<u8>>(), best);
        }
    }
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    struct Broken(f32, bool);
    impl Network for Broken {
        fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
            let [b, ..] = images.dims();
            let mut values = vec![0.5; b * 2 * 3 * 4];
            // In one window of the batch only.
            values[(b - 1) * 24 + 7] = self.0;
            let maps = Tensor::<4>::from_data(TensorData::new(values, [b, 2, 3, 4]), &images.device());
            let votes = self.1.then(|| Tensor::ones([b, 4, 3], &maps.device()));
            SegLogits { maps, votes }
        }
        fn classes(&self) -> usize {
            if self.1 { 3 } else { 4 }
        }
        fn padded(&self, side: usize) -> usize {
            side.next_multiple_of(4)
        }
    }
    for mode in [InferMode::Slide, InferMode::Whole] {
        let config = InferConfig { mode, ..config() };
        let views = [View::of_tensor(noise(1, [1, 3, 20, 40]), false)];
        for (votes, on_cpu) in [(false, false), (false, true), (true, false), (true, true)] {
            let found = |value| {
                let network = Broken(value, votes);
                let labels = labels_by(&network, &views, (20, 40), &config, on_cpu, &mut |_| {}).map(drop);
                let probabilities = probabilities_by(&network, &views, (20, 40), &config, on_cpu).map(drop);
                assert_eq!(labels.is_err(), probabilities.is_err());
                labels
            };
            assert!(found(3.0).is_ok());
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = found(value).unwrap_err();
                assert!(error.to_string().contains("logits") && error.hint().is_some(), "{error}");
            }
        }
    }
}

#[test]
fn a_device_with_gradients_gives_the_same_labels() {
    let images = noise(1, [1, 3, 20, 18]);
    let tracked = Tensor::<4>::from_data(images.to_data(), &Device::flex().autodiff());
    let on = |images| labels(&Toy::new(3), &[View::of_tensor(images, false)], (20, 18), &config()).unwrap();
    assert!(tracked.device().is_autodiff());
    assert_eq!(on(tracked), on(images));
}
