//! The passes of an iteration, done by one process or several: the same numbers either way.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::buckets::Buckets;
use super::gradients::Gradients;
use super::last_pass::{Earlier, LastPass};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::layers::{Statistic, fetch, parameters};

/// The output of an iteration: its gradients and its loss.
pub struct StepOutput {
    /// Gradients, the mean over its passes.
    pub gradients: Gradients,
    /// The loss; the iteration ends at once where it is not finite.
    pub loss: f64,
    /// Its parts by name.
    pub parts: BTreeMap<String, f64>,
    /// The images of the pass that was last.
    pub names: Vec<String>,
    /// Pixels of each label, 255 for those ignored.
    pub pixels: Box<[u64; 256]>,
}

/// A forward pass.
pub(super) struct Forward {
    /// What it says, but for the numbers that a device may still be computing.
    pub(super) report: PassReport,
    /// Its share of the loss.
    pub(super) loss: Tensor<1>,
    /// The parts of its loss, in their order.
    pub(super) parts: Vec<(String, Tensor<1>)>,
    pub(super) statistics: Vec<Statistic>,
}

impl Forward {
    pub(super) fn backward(&self, model: &impl Module) -> Gradients {
        Gradients::of(model, self.loss.backward())
    }
}

/// What one pass says.
#[derive(Default)]
pub(super) struct PassReport {
    /// Its share of the loss.
    pub(super) loss: f64,
    /// Its share of the parts, in their order.
    pub(super) parts: Vec<(String, f64)>,
    /// Its images.
    pub(super) names: Vec<String>,
    /// Pixels of each label that it has.
    pub(super) pixels: BTreeMap<u8, u64>,
}

impl PassReport {
    pub(super) fn count(&mut self, labels: &[u8]) {
        let mut pixels = [0u64; 256];
        labels.iter().for_each(|label| pixels[usize::from(*label)] += 1);
        self.pixels = (0..=255).zip(pixels).filter(|(_, count)| *count > 0).collect();
    }
}

/// The passes of one process.
#[derive(Default)]
pub(super) struct Passes {
    pub(super) reports: Vec<PassReport>,
    /// The gradients of those whose backward pass has been made; fewer where a loss is not finite.
    pub(super) gradients: Earlier,
    /// Of each pass.
    pub(super) statistics: Vec<Vec<Statistic>>,
    /// The last, whose backward pass is to be made while the processes add their gradients.
    pub(super) last: Option<LastPass>,
}

impl Passes {
    /// Takes in what a pass says, whose loss is this `share` of that of the iteration; whether its loss is finite.
    pub(super) fn push(&mut self, pass: Forward, share: f64) -> bool {
        let Forward { mut report, loss, parts, statistics } = pass;
        let part = |(name, part): (String, Tensor<1>)| (name, f64::from(part.into_scalar::<f32>()) * share);
        report.parts = parts.into_iter().map(part).collect();
        report.loss = f64::from(loss.inner().into_scalar::<f32>());
        let finite = report.loss.is_finite();
        self.reports.push(report);
        if finite {
            self.statistics.push(statistics);
        }
        finite
    }
}

/// The passes of all processes.
pub(super) struct AllPasses {
    pub(super) output: StepOutput,
    /// Of each pass, in order.
    pub(super) statistics: Vec<Vec<Statistic>>,
}

/// The passes of a process by itself.
pub(super) fn alone(own: Passes) -> AllPasses {
    let Passes { reports, mut gradients, statistics, .. } = own;
    let mut output = output(reports);
    output.gradients = gradients.sums.pop().unwrap_or_default();
    AllPasses { output, statistics }
}

/// What the passes of all processes come to, out of those of this one.
///
/// # Errors
/// The first error of any of them, or a process that has left.
pub(super) fn of_all(
    group: &dyn Group,
    buckets: &mut Buckets,
    (passes, model): (usize, &impl Module),
    own: Result<Passes>,
) -> Result<AllPasses> {
    let Passes { reports, gradients, statistics, last } = group.all_or_none(own)?;
    let sent = Sent { passes: reports.iter().map(SentPass::of).collect(), statistics: indices(model, &statistics) };
    let sent = group.gather_values(&sent)?;
    let mut output = output(sent.iter().flat_map(|sent| sent.passes.iter().map(SentPass::report)));
    // All know it of each other, and leave together.
    let Some(last) = last.filter(|_| output.loss.is_finite()) else {
        return Ok(AllPasses { output, statistics: Vec::new() });
    };
    output.gradients = buckets.sum(group, passes, model, (gradients, last))?;
    let statistics = gather_statistics(group, model, (&statistics, &sent))?;
    Ok(AllPasses { output, statistics })
}

/// What passes say, one after the other; up to the first whose loss is not finite.
fn output(reports: impl IntoIterator<Item = PassReport>) -> StepOutput {
    let mut found = StepOutput {
        gradients: Gradients::default(),
        loss: 0.0,
        parts: BTreeMap::new(),
        names: Vec::new(),
        pixels: Box::new([0; 256]),
    };
    for PassReport { loss, parts, names, pixels } in reports {
        found.names = names;
        pixels.into_iter().for_each(|(label, count)| found.pixels[usize::from(label)] += count);
        for (name, part) in parts {
            *found.parts.entry(name).or_insert(0.0) += part;
        }
        found.loss += loss;
        if !found.loss.is_finite() {
            break;
        }
    }
    found
}

/// What a process sends of its passes beside their gradients.
#[derive(Serialize, Deserialize)]
struct Sent {
    passes: Vec<SentPass>,
    /// The statistics of each pass.
    statistics: Vec<Vec<SentStatistic>>,
}

/// A pass in numbers that JSON keeps, whatever they are.
#[derive(Serialize, Deserialize)]
struct SentPass {
    loss: u64,
    parts: Vec<(String, u64)>,
    names: Vec<String>,
    pixels: BTreeMap<u8, u64>,
}

impl SentPass {
    fn of(report: &PassReport) -> Self {
        let PassReport { loss, parts, names, pixels } = report;
        let parts = parts.iter().map(|(name, part)| (name.clone(), part.to_bits())).collect();
        Self { loss: loss.to_bits(), parts, names: names.clone(), pixels: pixels.clone() }
    }

    fn report(&self) -> PassReport {
        let parts = self.parts.iter().map(|(name, part)| (name.clone(), f64::from_bits(*part))).collect();
        PassReport { loss: f64::from_bits(self.loss), parts, names: self.names.clone(), pixels: self.pixels.clone() }
    }
}

/// A statistic without its values: the place of its parameter in the network, how many values it has, and its momentum.
type SentStatistic = (usize, usize, u64);

fn indices(model: &impl Module, statistics: &[Vec<Statistic>]) -> Vec<Vec<SentStatistic>> {
    if statistics.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let places: BTreeMap<_, _> =
        parameters::list(model).into_iter().enumerate().map(|(place, (_, _, id))| (id, place)).collect();
    let sent = |one: &Statistic| {
        let place = places.get(&one.id).copied().unwrap_or(usize::MAX);
        (place, one.value.dims()[0], one.momentum.to_bits())
    };
    statistics.iter().map(|pass| pass.iter().map(sent).collect()).collect()
}

/// The statistics of all passes of all processes.
fn gather_statistics(
    group: &dyn Group,
    model: &impl Module,
    (own, sent): (&[Vec<Statistic>], &[Sent]),
) -> Result<Vec<Vec<Statistic>>> {
    if sent.iter().all(|sent| sent.statistics.is_empty()) {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    for statistic in own.iter().flatten() {
        fetch(statistic.value.clone()).iter::<f32>().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    let device = &model.devices().into_iter().next().unwrap_or_else(Device::flex).without_autodiff();
    let ids: Vec<_> = parameters::list(model).into_iter().map(|(_, _, id)| id).collect();
    let mut all = Vec::new();
    for (bytes, sent) in group.gather(&bytes)?.into_iter().zip(sent) {
        let mut values = bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        for pass in &sent.statistics {
            let statistic = |(place, length, momentum): &SentStatistic| {
                let id = *ids.get(*place).ok_or_else(|| Error::new("another process has another network"))?;
                let values: Vec<f32> = values.by_ref().take(*length).collect();
                let value = Tensor::from_data(TensorData::new(values, [*length]), device);
                Ok(Statistic { id, value, momentum: f64::from_bits(*momentum) })
            };
            all.push(pass.iter().map(statistic).collect::<Result<_>>()?);
        }
    }
    Ok(all)
}
