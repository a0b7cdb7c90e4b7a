//! The loss of a set of masks: the matching with the truth one to one, the choice of points, and the losses of the
//! pairs (Carion et al. 2020; Cheng et al. 2021 and 2022).
//!
//! ```text
//! truth ──▶ one target per class of the image ─┐
//! queries ──▶ cost of each pair ──assign──▶ pairs ──▶ class, mask and dice loss
//! ```
//!
//! Unlabelled pixels belong to no target, and count against every mask, as in the published code.

use std::collections::BTreeMap;

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::decoder::{Queries, SetLossConfig};
use crate::kernels::{ClassMasks, PointLoss, class_mask_losses, mask_losses, pairwise_mask_losses, point_sample};
use crate::layers::without_graph;
use crate::loss::assignment::assign;
use crate::loss::class::class_cross_entropy;
use crate::loss::{Draw, IGNORE, Targets};

/// The parts of the loss, each summed over predictions and weighted: `class`, `mask`, `dice`.
///
/// Random points are drawn under `{prediction}.match.{image}`, `{prediction}.over` and `{prediction}.rand`, where the
/// prediction is its number, or `final` for the last.
pub(super) fn losses(
    predictions: Vec<Queries>,
    targets: &Targets,
    config: &SetLossConfig,
    class_weights: &[f32],
    draw: Draw,
) -> BTreeMap<String, Tensor<1>> {
    let mask_targets = MaskTargets::of(targets);
    let last = predictions.len() - 1;
    let mut total: BTreeMap<String, Tensor<1>> = BTreeMap::new();
    for (i, prediction) in predictions.into_iter().enumerate() {
        let name = if i == last { "final".to_owned() } else { i.to_string() };
        let pairs = match_targets(&prediction, &mask_targets, config, &name, draw);
        for (part, loss) in pair_losses(prediction, &mask_targets, &pairs, config, class_weights, &name, draw) {
            let sum = match total.remove(part) {
                Some(sum) => sum + loss,
                None => loss,
            };
            total.insert(part.to_owned(), sum);
        }
    }
    total
}

/// The masks of a batch: for each image the classes that are in it, ascending.
struct MaskTargets<'a> {
    targets: &'a Targets,
    classes: Vec<Vec<u8>>,
}

/// A query of an image and the class of the mask it was matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchedPair {
    /// Which image of the batch.
    pub image: usize,
    /// Which query of it.
    pub query: usize,
    /// The class of the mask.
    pub class: u8,
}

impl<'a> MaskTargets<'a> {
    fn of(targets: &'a Targets) -> Self {
        let present = |image: usize| {
            let mut seen = [false; 256];
            targets.image(image).iter().for_each(|id| seen[usize::from(*id)] = true);
            (0..IGNORE).filter(|id| seen[usize::from(*id)]).collect()
        };
        Self { targets, classes: (0..targets.shape[0]).map(present).collect() }
    }

    /// Masks of the whole batch, at least 1: what mask losses are divided by.
    fn count(&self) -> f64 {
        self.classes.iter().map(Vec::len).sum::<usize>().max(1) as f64
    }

    /// The masks of some classes of an image at points `[p, 2]`, x first, in [0, 1]: `[t, p]`, bilinear and zero
    /// outside.
    fn sampled(&self, image: usize, classes: &[u8], points: &[f32]) -> Vec<f32> {
        let (ids, [_, h, w]) = (self.targets.image(image), self.targets.shape);
        let p = points.len() / 2;
        let mut row = [None; 256];
        classes.iter().enumerate().for_each(|(t, class)| row[usize::from(*class)] = Some(t * p));
        let mut values = vec![0.0; classes.len() * p];
        for (at, point) in points.chunks_exact(2).enumerate() {
            let (x, y) = (point[0] * w as f32 - 0.5, point[1] * h as f32 - 0.5);
            let (left, top) = (x.floor(), y.floor());
            let (tx, ty) = (x - left, y - top);
            for (row_offset, wy) in [(0, 1.0 - ty), (1, ty)] {
                for (column_offset, wx) in [(0, 1.0 - tx), (1, tx)] {
                    let (y, x) = (top as i64 + row_offset, left as i64 + column_offset);
                    if (0..h as i64).contains(&y)
                        && (0..w as i64).contains(&x)
                        && let Some(start) = row[usize::from(ids[y as usize * w + x as usize])]
                    {
                        values[start + at] += wy * wx;
                    }
                }
            }
        }
        values
    }

    /// The masks of some classes of an image, nearest-resized to (rows, columns): `[t, rows * columns]`.
    fn shrunk(&self, image: usize, classes: &[u8], (rows, columns): (usize, usize)) -> Vec<f32> {
        let (ids, [_, h, w]) = (self.targets.image(image), self.targets.shape);
        let id = |i: usize, j: usize| ids[i * h / rows * w + j * w / columns];
        let all: Vec<u8> = (0..rows).flat_map(|i| (0..columns).map(move |j| id(i, j))).collect();
        classes.iter().flat_map(|class| all.iter().map(move |id| f32::from(u8::from(id == class)))).collect()
    }
}

/// The pairs of least cost, by image, then by query; `name` is the prediction's, under which points are drawn.
pub fn hungarian_match(
    prediction: &Queries,
    targets: &Targets,
    config: &SetLossConfig,
    name: &str,
    draw: Draw,
) -> Vec<MatchedPair> {
    match_targets(prediction, &MaskTargets::of(targets), config, name, draw)
}

fn match_targets(
    prediction: &Queries,
    mask_targets: &MaskTargets,
    config: &SetLossConfig,
    name: &str,
    draw: Draw,
) -> Vec<MatchedPair> {
    let [batch, queries, kinds] = prediction.classes.dims();
    let [_, _, h, w] = prediction.masks.dims();
    let (classes, masks) = (without_graph(prediction.classes.clone()), without_graph(prediction.masks.clone()));
    let device = masks.device();
    let probabilities: Vec<f32> = to_vec(softmax(classes, 2));
    let mut pairs = Vec::new();
    for image in 0..batch {
        let present = &mask_targets.classes[image];
        // Drawn even if there is nothing to match, so that other images' points do not depend on it.
        let points = match config.num_points {
            0 => Vec::new(),
            count => draw(&format!("{name}.match.{image}"), 2 * count),
        };
        if present.is_empty() {
            continue;
        }
        let planes = masks.clone().narrow(0, image, 1).reshape([queries, h, w]);
        let (logits, labels) = match config.num_points {
            0 => (planes.reshape([queries, h * w]), mask_targets.shrunk(image, present, (h, w))),
            count => {
                let labels = mask_targets.sampled(image, present, &points);
                let points = Tensor::from_data(TensorData::new(points, [1, count, 2]), &device);
                (point_sample(planes, points), labels)
            }
        }; // [q, p], [t, p]
        let columns = labels.len() / present.len();
        let labels = Tensor::<2>::from_data(TensorData::new(labels, [present.len(), columns]), &device);
        let losses = to_vec(pairwise_mask_losses(logits, labels, point_loss(config))); // [2, q, t]
        let (mask, dice) = losses.split_at(queries * present.len());
        let cost = mask.iter().zip(dice).enumerate().map(|(at, (mask, dice))| {
            let (query, target) = (at / present.len(), at % present.len());
            let class = usize::from(present[target]);
            config.mask_weight * f64::from(*mask) + config.dice_weight * f64::from(*dice)
                - config.class_weight * f64::from(probabilities[(image * queries + query) * kinds + class])
        });
        let cost: Vec<f64> = cost.collect();
        let found = assign(&cost, queries, present.len());
        pairs.extend(found.into_iter().map(|(query, target)| MatchedPair { image, query, class: present[target] }));
    }
    pairs
}

/// The weighted losses of a prediction, by part.
fn pair_losses(
    prediction: Queries,
    mask_targets: &MaskTargets,
    pairs: &[MatchedPair],
    config: &SetLossConfig,
    class_weights: &[f32],
    name: &str,
    draw: Draw,
) -> Vec<(&'static str, Tensor<1>)> {
    let Queries { classes, masks } = prediction;
    let [batch, queries, kinds] = classes.dims();
    let [_, _, h, w] = masks.dims();
    let (device, none) = (masks.device(), kinds - 1);
    let mut query_classes = vec![none; batch * queries];
    pairs.iter().for_each(|pair| query_classes[pair.image * queries + pair.query] = usize::from(pair.class));
    let mut weights = if class_weights.is_empty() { vec![1.0; none] } else { class_weights.to_vec() };
    weights.push(config.no_object_weight as f32);
    let class = class_cross_entropy(classes, &query_classes, &weights) * config.class_weight;
    if pairs.is_empty() {
        return vec![("class", class)];
    }
    let indices: Vec<i32> = pairs.iter().map(|pair| (pair.image * queries + pair.query) as i32).collect();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [pairs.len()]), &device);
    let planes = masks.reshape([batch * queries, h, w]).select(0, indices); // [r, h, w]
    let losses = match config.num_points {
        0 => {
            let [_, height, width] = mask_targets.targets.shape;
            let masks = pairs.iter().map(|pair| (pair.image, pair.class)).collect();
            let class_masks = ClassMasks { maps: mask_targets.targets.ids.clone(), size: (height, width), masks };
            class_mask_losses(planes, class_masks, point_loss(config))
        }
        points => {
            let drawn = uncertain_points(without_graph(planes.clone()), points, config, name, draw);
            let each = pairs.iter().zip(drawn.chunks_exact(2 * points));
            let labels = each.flat_map(|(pair, points)| mask_targets.sampled(pair.image, &[pair.class], points));
            let labels = TensorData::new(labels.collect::<Vec<f32>>(), [pairs.len(), points]);
            let labels = Tensor::<2>::from_data(labels, &device);
            let drawn = Tensor::from_data(TensorData::new(drawn, [pairs.len(), points, 2]), &device);
            mask_losses(point_sample(planes, drawn), labels, point_loss(config))
        }
    }; // [r, 2]
    let sum = |column| losses.clone().narrow(1, column, 1).sum() / mask_targets.count();
    vec![("class", class), ("mask", sum(0) * config.mask_weight), ("dice", sum(1) * config.dice_weight)]
}

/// Masks at points are judged by their cross entropy, whole ones by focal loss.
fn point_loss(config: &SetLossConfig) -> PointLoss {
    if config.num_points > 0 { PointLoss::CrossEntropy } else { PointLoss::Focal }
}

/// Points `[r, count, 2]` for the planes `[r, h, w]`: of more that are drawn those where a plane is nearest to 0, and
/// some drawn afresh (PointRend, Kirillov et al. 2020).
fn uncertain_points(planes: Tensor<3>, count: usize, config: &SetLossConfig, name: &str, draw: Draw) -> Vec<f32> {
    let ([r, _, _], device) = (planes.dims(), planes.device());
    let many = (count as f64 * config.oversample_ratio) as usize;
    let uncertain = (count as f64 * config.importance_sample_ratio) as usize;
    let over = draw(&format!("{name}.over"), r * many * 2);
    let fresh = draw(&format!("{name}.rand"), r * (count - uncertain) * 2);
    let logits = point_sample(planes, Tensor::from_data(TensorData::new(over.clone(), [r, many, 2]), &device));
    let logits: Vec<f32> = to_vec(logits);
    let mut points = Vec::with_capacity(r * count * 2);
    for i in 0..r {
        let (logits, over) = (&logits[i * many..][..many], &over[2 * i * many..][..2 * many]);
        let mut order: Vec<usize> = (0..many).collect();
        if uncertain < many {
            order
                .select_nth_unstable_by(uncertain, |a, b| logits[*a].abs().total_cmp(&logits[*b].abs()).then(a.cmp(b)));
            order.truncate(uncertain);
            order.sort_unstable();
        }
        points.extend(order.iter().flat_map(|at| [over[2 * at], over[2 * at + 1]]));
        let fresh_each = 2 * (count - uncertain);
        points.extend_from_slice(&fresh[i * fresh_each..][..fresh_each]);
    }
    points
}

/// Values of a tensor in row order.
fn to_vec<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}
