//! How much memory a server takes at most, from its limits and its models.

use crate::infer::memory::{MemoryEstimate, MemoryModel};
use crate::serve::gate::Gate;
use crate::serve::limits::Limits;
use crate::serve::loaded::Loaded;

/// Bytes of the most that is held at once: all models and one being loaded, the largest image that is accepted, and
/// bodies.
pub(super) fn memory(models: &[&Loaded], gate: &Gate, limits: &Limits) -> u64 {
    let estimates: Vec<MemoryEstimate> = models.iter().map(|model| of_model(model, gate, limits)).collect();
    let most = |part: fn(&MemoryEstimate) -> usize| estimates.iter().map(part).max().unwrap_or(0) as u64;
    let weights: u64 = estimates.iter().map(|found| found.weights as u64).sum();
    let at_work = most(|found| found.network + found.convolutions + found.windows + found.images);
    most(|found| found.program) + weights + most(|found| found.weights) + at_work + limits.queue_bytes as u64
}

fn of_model(model: &Loaded, gate: &Gate, limits: &Limits) -> MemoryEstimate {
    let threads = rayon::current_num_threads();
    let plan = |side| MemoryModel {
        model: model.cost.model(),
        classes: model.predictor.classes().len(),
        parameters: model.parameters,
        settings: &model.settings,
        image: (side, side),
        threads,
    };
    // The largest square that is let through, to a quarter of its side.
    let mut side = (limits.pixels as f64).sqrt() as usize;
    while side > 1 && model.cost.pixels((side, side)) > gate.most_pixels() {
        side = side * 3 / 4;
    }
    // Of smaller ones several share a pass, as far as so many fit into the queue.
    let estimate = |side| {
        let fit = gate.most_pixels() / model.cost.pixels((side, side)).max(1);
        let shared = model.settings.passes((side, side)).map_or(1, |passes| passes.images_at_once());
        plan(side).estimate_labeling(shared.min(fit as usize).max(1))
    };
    let smaller =
        std::iter::successors(Some(side.max(1)), |side| Some(side * 49 / 50).filter(|side| *side >= SMALLEST));
    let at_work = |found: &MemoryEstimate| found.network + found.convolutions + found.windows + found.images;
    smaller.map(estimate).max_by_key(at_work).unwrap_or_else(|| estimate(1))
}

/// The side of the smallest images whose number is looked at.
const SMALLEST: usize = 64;
