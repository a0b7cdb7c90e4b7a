//! A forward and a backward pass, on a GPU recorded and replayed from then on.
//!
//! The processor needs longer to queue the thousands of small kernels of a pass one by one than a GPU to run them. Two
//! passes of one shape are queued so, the third is recorded, the fourth compared with its replay. The weights, the
//! batch and what is drawn at random are inputs of the recording; its outputs are the loss, the gradients and the
//! statistics. Passes that read what the device found, as those that match queries, are never recorded.

use burn::module::ParamId;
use burn::tensor::{Int, Tensor, TensorData};

use super::forward_pass::{Place, StepContext, Trainable, Uploaded, context_of, forward};
use super::gradients::Gradients;
use super::passes::{Forward, PassReport};
use crate::kernels::{self, Recording};
use crate::layers::{ForwardContext, Statistic, parameters};
use crate::loss::Targets;

/// Passes before one is recorded.
const BEFORE: usize = 2;
/// How far the gradients of a replay may be from those of the pass, in shares of their norm.
const TOLERANCE: f32 = 1e-2;

/// The passes of a run, recorded where that can be.
pub(super) struct RecordedPass<M>(Stage<M>);

impl<M> Default for RecordedPass<M> {
    fn default() -> Self {
        Self(Stage::Queued(0))
    }
}

enum Stage<M> {
    /// So many passes until now.
    Queued(usize),
    /// Recorded, and not compared yet.
    New(Recorded<M>),
    Recorded(Recorded<M>),
    /// Such a pass cannot be recorded, or its replay was another.
    Refused,
}

struct Recorded<M> {
    recording: Recording,
    layout: Layout,
    /// What the recording may have read beside its inputs.
    _model: M,
}

/// What goes into a pass and comes out of it, but for the numbers.
#[derive(Clone, PartialEq)]
struct Layout {
    images: [usize; 4],
    targets: [usize; 3],
    draws: Vec<(usize, f64)>,
    parts: Vec<String>,
    gradients: Vec<String>,
    statistics: Vec<(ParamId, f64)>,
}

impl<M: Trainable> RecordedPass<M> {
    /// A forward pass, and the gradients of the backward pass.
    pub(super) fn run(&mut self, model: &M, batch: Uploaded, step: &StepContext, at: Place) -> (Forward, Gradients) {
        if !kernels::can_record(&batch.images.clone().inner()) {
            return queued(model, batch, step, at);
        }
        let stage = std::mem::replace(&mut self.0, Stage::Refused);
        let (pass, stage) = match stage {
            Stage::New(recorded) | Stage::Recorded(recorded) if !recorded.layout.fits(&batch) => {
                (queued(model, batch, step, at), Stage::New(recorded))
            }
            Stage::New(recorded) => {
                let outputs = recorded.replay(model, &batch, step, at);
                let pass = queued(model, batch, step, at);
                let same = outputs.is_some_and(|outputs| recorded.layout.is_close(&pass, &outputs));
                (pass, if same { Stage::Recorded(recorded) } else { Stage::Refused })
            }
            Stage::Recorded(recorded) => match recorded.replay(model, &batch, step, at) {
                Some(outputs) => (recorded.layout.pass(outputs, batch.report), Stage::Recorded(recorded)),
                None => (queued(model, batch, step, at), Stage::Refused),
            },
            Stage::Queued(passes) if passes >= BEFORE => record(model, batch, step, at),
            Stage::Queued(passes) => (queued(model, batch, step, at), Stage::Queued(passes + 1)),
            Stage::Refused => (queued(model, batch, step, at), Stage::Refused),
        };
        self.0 = stage;
        pass
    }

    /// Whether passes are replayed.
    #[cfg(test)]
    pub(super) fn is_recorded(&self) -> bool {
        matches!(self.0, Stage::Recorded(_))
    }
}

/// A pass whose kernels are queued one by one, and a recording of another.
fn record<M: Trainable>(model: &M, batch: Uploaded, step: &StepContext, at: Place) -> ((Forward, Gradients), Stage<M>) {
    let (images, targets) = (batch.images.clone(), batch.targets.clone());
    let (shape, context) = (images.dims(), context_of(step, at));
    let (forward, dense) = forward(model, batch, step, (at, &context));
    let gradients = forward.backward(model);
    let layout = Layout {
        images: shape,
        targets: targets.ids().0,
        draws: context.draws(),
        parts: forward.parts.iter().map(|(name, _)| name.clone()).collect(),
        gradients: gradients.0.keys().cloned().collect(),
        statistics: forward.statistics.iter().map(|statistic| (statistic.id, statistic.momentum)).collect(),
    };
    let can = dense && step.criterion.is_on_device() && !context.has_told_progress();
    let recorded = can.then(|| {
        let inputs = layout.inputs(model, &images, &targets, &context_of(step, at));
        let recording = Recording::new(inputs, &|inputs| layout.outputs(model, inputs, step))?;
        Some(Recorded { recording, layout: layout.clone(), _model: model.clone() })
    });
    ((forward, gradients), recorded.flatten().map_or(Stage::Refused, Stage::New))
}

impl<M: Trainable> Recorded<M> {
    fn replay(&self, model: &M, batch: &Uploaded, step: &StepContext, at: Place) -> Option<Vec<Tensor<1>>> {
        let inputs = self.layout.inputs(model, &batch.images, &batch.targets, &context_of(step, at));
        // SAFETY: what the pass reads of the model beside its parameters, which are inputs, is held here.
        unsafe { self.recording.replay(inputs) }
    }
}

impl Layout {
    fn fits(&self, batch: &Uploaded) -> bool {
        (batch.images.dims(), batch.targets.ids().0) == (self.images, self.targets)
    }

    /// Images, labels, what is drawn, and the parameters.
    fn inputs(
        &self,
        model: &impl Trainable,
        images: &Tensor<4>,
        targets: &Targets,
        context: &ForwardContext,
    ) -> Vec<Tensor<1>> {
        let device = images.device().without_autodiff();
        let upload = |values: Vec<f32>| {
            let len = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [len]), &device)
        };
        let labels = upload(targets.ids().1.iter().map(|id| f32::from(*id)).collect());
        let draws = self.draws.iter().flat_map(|(count, rate)| context.factors(*count, *rate).unwrap_or_default());
        let mut inputs = vec![images.clone().inner().flatten(0, 3), labels];
        inputs.push(upload(draws.chain([0.0]).collect())); // never empty
        parameters::visit(model, |_, value| inputs.push(value));
        inputs
    }

    /// Of the same inputs the loss, its parts, the gradients and the statistics.
    fn outputs(&self, model: &impl Trainable, inputs: Vec<Tensor<1>>, step: &StepContext) -> Vec<Tensor<1>> {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().unwrap_or_else(|| unreachable!("as many as were recorded"));
        let images = Tensor::from_inner(next().reshape(self.images));
        let labels: Tensor<3, Int> = Tensor::from_inner(next().reshape(self.targets)).int();
        let draws = next();
        let model = parameters::map(model.clone(), |_, _| next());
        let batch = Uploaded { report: PassReport::default(), images, targets: Targets::on_device(labels) };
        // The flags do not matter, as the factors are inputs.
        let context = ForwardContext::train_with(|count, _| vec![true; count]);
        let at = Place { iteration: 0, progress: 0.0, pass: 0 };
        let forward = kernels::drawing_from(draws, || forward(&model, batch, step, (at, &context)).0);
        let gradients = forward.backward(&model);
        let mut outputs = vec![forward.loss.inner()];
        outputs.extend(forward.parts.into_iter().map(|(_, part)| part));
        outputs.extend(gradients.0.into_values());
        outputs.extend(forward.statistics.into_iter().map(|statistic| statistic.value));
        outputs
    }

    /// What the outputs say.
    fn pass(&self, outputs: Vec<Tensor<1>>, report: PassReport) -> (Forward, Gradients) {
        let mut outputs = outputs.into_iter();
        let mut next = || outputs.next().unwrap_or_else(|| unreachable!("as many as were recorded"));
        let loss = next();
        let parts = self.parts.iter().map(|name| (name.clone(), next())).collect();
        let gradients = Gradients(self.gradients.iter().map(|name| (name.clone(), next())).collect());
        let statistic = |(id, momentum): &(ParamId, f64)| Statistic { id: *id, value: next(), momentum: *momentum };
        let statistics = self.statistics.iter().map(statistic).collect();
        (Forward { report, loss, parts, statistics }, gradients)
    }

    /// Whether a pass and the outputs of its replay say the same up to rounding.
    fn is_close(&self, (forward, gradients): &(Forward, Gradients), outputs: &[Tensor<1>]) -> bool {
        let (replayed, other) = self.pass(outputs.to_vec(), PassReport::default());
        let loss = |forward: &Forward| forward.loss.clone().inner().into_scalar::<f32>();
        let (loss, replayed) = (loss(forward), loss(&replayed));
        let norm = |gradients: &Gradients| gradients.norm().map_or(0.0, Tensor::into_scalar::<f32>);
        let differences = gradients.0.iter().zip(other.0.values());
        let difference = Gradients(differences.map(|((name, a), b)| (name.clone(), a.clone() - b.clone())).collect());
        // Nothing is close to what is not a number, but then the run ends.
        let close =
            (loss - replayed).abs() <= TOLERANCE * loss.abs() && norm(&difference) <= TOLERANCE * norm(gradients);
        close || !loss.is_finite()
    }
}

fn queued<M: Trainable>(model: &M, batch: Uploaded, step: &StepContext, at: Place) -> (Forward, Gradients) {
    let forward = forward(model, batch, step, (at, &context_of(step, at))).0;
    let gradients = forward.backward(model);
    (forward, gradients)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::Config;
    use crate::group::Alone;
    use crate::infer::toy::noise;
    use crate::layers::fetch;
    use crate::loss::Criterion;
    use crate::model::Model;

    fn batch(seed: u64, model: &Model, device: &Device) -> Uploaded {
        let images = Tensor::from_data(noise(seed, [2, 3, 32, 40]).into_data(), device);
        let ids = (0..2 * 32 * 40).map(|i| if i % 40 < 4 { 255 } else { ((i as u64 / 100 + seed) % 3) as u8 });
        let targets = Targets::new(ids.collect(), [2, 32, 40]).padded((model.padded(32), model.padded(40)));
        Uploaded { report: PassReport::default(), images, targets }
    }

    /// Passes with dropped paths, batch norm, class weights and auxiliary predictions, and one that matches queries.
    #[test]
    fn a_gpu_replays_passes() {
        let name = std::env::var("STRUCTTOKEN_TEST_DEVICE").unwrap_or_default();
        if name.is_empty() || name == "cpu" {
            eprintln!("skipped: STRUCTTOKEN_TEST_DEVICE names no GPU");
            return;
        }
        let device = crate::device::open(&name).unwrap().0.autodiff();
        let vit = "type = \"vit\"\nembed_dim = 24\ndepth = 2\nnum_heads = 2\npatch_size = 8\nimg_size = [32, 40]\ndrop_path_rate = 0.5";
        let unet = "type = \"unet\"\ndepths = [1, 1, 1, 1]";
        let tokens = "type = \"structtoken\"\nnum_blocks = 1\ndrop_path_rate = 0.5";
        let (fcn, queries) = ("type = \"fcn\"\ndropout_ratio = 0.3", "type = \"maskformer\"\nnum_queries = 7");
        for (backbone, decoder, recordable) in
            [(vit, tokens, true), (unet, fcn, true), (vit, "type = \"knet\"", true), (vit, queries, false)]
        {
            let text = format!("[model.backbone]\n{backbone}\n[model.decoder]\n{decoder}");
            let recipe = Config::parse(&text, "recorded", &[]).unwrap();
            let model = recipe.model.init(3, 7, &device);
            let criterion =
                Criterion { class_weights: vec![0.5, 1.0, 2.0], decoder: model.decoder_loss(), ..Criterion::default() };
            let step = StepContext {
                config: &recipe.train,
                preprocess: &recipe.data.preprocess,
                criterion: &criterion,
                device: &device,
                group: &Alone,
            };
            let mut recorded = RecordedPass::default();
            let started = std::time::Instant::now();
            for pass in 0..6 {
                let at = Place { iteration: pass, progress: 0.0, pass: 0 };
                // Other weights each time.
                let model = parameters::map(model.clone(), |_, value| value * (1.0 + 0.01 * pass as f32));
                let (ours, our_gradients) = recorded.run(&model, batch(pass, &model, &device), &step, at);
                let (theirs, gradients) = queued(&model, batch(pass, &model, &device), &step, at);
                let loss = |forward: &Forward| fetch(forward.loss.clone().inner()).iter::<f32>().next().unwrap();
                let (ours_is, theirs_is) = (loss(&ours), loss(&theirs));
                assert!((ours_is - theirs_is).abs() <= 1e-5 * theirs_is, "{ours_is} for {theirs_is}: {text}");
                assert!(our_gradients.0.keys().eq(gradients.0.keys()));
                for (name, gradient) in &gradients.0 {
                    let all = |x: &Tensor<1>| fetch(x.clone()).iter::<f32>().collect::<Vec<f32>>();
                    let (ours, theirs) = (all(&our_gradients.0[name]), all(gradient));
                    let largest = theirs.iter().fold(1e-6f32, |largest, value| largest.max(value.abs()));
                    let far = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(far <= 1e-3 * largest, "pass {pass}, {name}: {far} of {largest}: {text}");
                }
                assert_eq!(ours.statistics.len(), theirs.statistics.len());
                for (ours, theirs) in ours.statistics.iter().zip(&theirs.statistics) {
                    assert_eq!(ours.id, theirs.id);
                    let far = fetch((ours.value.clone() - theirs.value.clone()).abs().max());
                    assert!(far.iter::<f32>().all(|far| far < 1e-4), "{text}");
                }
            }
            eprintln!("{:.1} s: {text}", started.elapsed().as_secs_f64());
            assert_eq!(recorded.is_recorded(), recordable, "{text}");
        }
    }
}
