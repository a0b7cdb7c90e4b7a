//! How much memory a server takes at most, from its limits and its models, and which images take it.

use crate::available_memory;
use crate::error::Result;
use crate::infer::is_cpu;
use crate::infer::memory::{ENSURED_SHARE, MemoryEstimate, MemoryModel};
use crate::serve::gate::Gate;
use crate::serve::limits::Limits;
use crate::serve::loaded::Loaded;

/// Images of one size that are labelled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Height and width in pixels.
    pub(super) size: (usize, usize),
    /// How many share a pass.
    pub(super) images: usize,
}

/// Bytes of the most that is held at once: all models and one being loaded, the largest image that is accepted, and
/// bodies.
pub(super) fn memory(models: &[&Loaded], gate: &Gate, limits: &Limits) -> u64 {
    let of = |model: &&Loaded| heaviest(model, gate, limits).map(|load| labeling(model, load));
    let estimates: Vec<MemoryEstimate> = models.iter().filter_map(of).collect();
    let most = |part: fn(&MemoryEstimate) -> usize| estimates.iter().map(part).max().unwrap_or(0) as u64;
    let weights: u64 = estimates.iter().map(|found| found.weights as u64).sum();
    most(|found| found.program) + weights + most(|found| found.weights) + most(at_work) + limits.queue_bytes as u64
}

/// The largest image that is accepted, alone, of the shape that costs the most; none where none is accepted.
pub(super) fn largest(model: &Loaded, gate: &Gate, limits: &Limits) -> Option<Load> {
    let sizes = shapes(model).filter_map(|shape| largest_of(shape, model, gate, limits));
    let size = sizes.max_by_key(|size| model.cost.pixels(*size))?;
    Some(Load { size, images: 1 })
}

/// What takes the most memory: the largest image, or smaller ones of which several share a pass, as far as so many fit
/// into the queue.
pub(super) fn heaviest(model: &Loaded, gate: &Gate, limits: &Limits) -> Option<Load> {
    let shared = |size| {
        let fit = gate.most_pixels() / model.cost.pixels(size).max(1);
        let shared = model.settings.passes(size).map_or(1, |passes| passes.images_at_once());
        (fit > 0).then(|| Load { size, images: shared.min(fit as usize).max(1) })
    };
    let smaller = |&(height, width): &(usize, usize)| {
        let smaller = (height * 49 / 50, width * 49 / 50);
        (smaller.0.min(smaller.1) >= SMALLEST).then_some(smaller)
    };
    let loads = shapes(model).flat_map(|shape| {
        std::iter::successors(largest_of(shape, model, gate, limits), smaller).filter_map(shared).collect::<Vec<_>>()
    });
    loads.max_by_key(|load| at_work(&labeling(model, *load)))
}

/// Fails where a load needs for certain more than is left beside `passed`, which loads before it have taken. Answers
/// with what it takes, in bytes.
///
/// # Errors
/// What it needs, and what is left.
pub(super) fn ensure(model: &Loaded, load: Load, passed: u64) -> Result<u64> {
    let estimated = at_work(&labeling(model, load)) as u64;
    let more = estimated.saturating_sub(passed);
    available_memory::require_estimated(more, (more as f64 * ENSURED_SHARE) as u64, "labelling", LESS)?;
    Ok(estimated)
}

/// What helps where a load does not fit.
pub(super) const LESS: &str = "lower --max-pixels or --max-queue, or give the server more memory";

/// The side of the smallest images whose number is looked at.
const SMALLEST: usize = 64;

/// Height and width of images, up to a factor: square ones, and those in portrait and landscape that fill the model's
/// usual window or the box into which images are resized.
fn shapes(model: &Loaded) -> impl Iterator<Item = (f64, f64)> {
    let boxes = [Some(model.settings.crop), model.settings.resize, Some([1, 1])];
    let both = |[one, other]: [usize; 2]| [(one as f64, other as f64), (other as f64, one as f64)];
    boxes.into_iter().flatten().flat_map(both)
}

/// The largest image of a shape that is accepted.
fn largest_of(shape: (f64, f64), model: &Loaded, gate: &Gate, limits: &Limits) -> Option<(usize, usize)> {
    let size = |scale: f64| [shape.0, shape.1].map(|part| ((part * scale) as usize).max(1));
    let fits = |&[height, width]: &[usize; 2]| {
        let pixels = (height as u64).saturating_mul(width as u64);
        pixels <= limits.pixels && model.cost.pixels((height, width)) <= gate.most_pixels()
    };
    // Half the way to what does not fit, again and again: windows make the cost rise in steps, but rise.
    let (mut large, mut small) = ((limits.pixels as f64 / (shape.0 * shape.1)).sqrt(), 0.0);
    let mut found = Some(size(large)).filter(fits);
    if found.is_none() {
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(small, large);
            match Some(size(middle)).filter(fits) {
                Some(fit) => (small, found) = (middle, Some(fit)),
                None => large = middle,
            }
        }
    }
    found.map(|[height, width]| (height, width))
}

/// To a part in a million.
const HALVINGS: usize = 20;

fn labeling(model: &Loaded, load: Load) -> MemoryEstimate {
    let plan = MemoryModel {
        model: model.cost.model(),
        classes: model.predictor.classes().len(),
        parameters: model.parameters,
        settings: &model.settings,
        image: load.size,
        threads: rayon::current_num_threads(),
    };
    let found = plan.estimate_labeling(load.images);
    // A GPU has memory of its own, of which nothing is known.
    if is_cpu(model.predictor.inference().device) {
        found
    } else {
        MemoryEstimate { network: 0, convolutions: 0, ..found }
    }
}

fn at_work(found: &MemoryEstimate) -> usize {
    found.network + found.convolutions + found.windows + found.images
}
