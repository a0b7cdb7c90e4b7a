//! A network whose launches on a GPU are recorded and launched again as a whole.
//!
//! The processor needs longer to queue the hundreds of small kernels of a pass one by one than a GPU to run them.
//! A pass that has been asked for twice with inputs of one shape is recorded the third time, compared with the network
//! itself the fourth, and replayed from then on.

use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use burn::tensor::Tensor;

use crate::decoder::SegLogits;
use crate::infer::Network;
use crate::kernels::{self, Recording};

/// Passes of one shape before it is recorded: images of many sizes are not worth it.
const BEFORE: usize = 2;
/// Recordings that are kept, each with the memory of a pass.
const MOST: usize = 2;
/// Passes after which a recording that was not asked for makes room for another.
const IDLE: u64 = 256;
/// Shapes that are remembered.
const SHAPES: usize = 64;
/// How far a replay may be from the network, in shares of its largest value.
const TOLERANCE: f32 = 1e-3;

/// A network, on a GPU by recordings of its passes; elsewhere it is the network itself.
pub struct Replayed<N> {
    network: N,
    /// The shapes that were asked for, the last one first.
    shapes: Mutex<Vec<Shape>>,
}

/// What is known of inputs of one shape on one thread, as launches of different threads are in no order.
struct Shape {
    thread: ThreadId,
    input: [usize; 4],
    /// The number of its last pass.
    used: u64,
    stage: Stage,
}

enum Stage {
    /// So many passes until now.
    Asked(usize),
    /// Recorded, and not compared with the network yet.
    New(Pass),
    Recorded(Pass),
    /// The device cannot record the pass, or its replay was another.
    Refused,
}

/// A recorded pass, with the shapes of what the network says.
struct Pass {
    recording: Recording,
    maps: [usize; 4],
    votes: Option<[usize; 3]>,
}

impl<N: Network> Replayed<N> {
    /// Nothing is recorded yet.
    pub fn new(network: N) -> Self {
        Self { network, shapes: Mutex::default() }
    }

    /// The network itself.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// How many recordings are in use.
    pub fn recordings(&self) -> usize {
        self.lock().iter().filter(|shape| matches!(shape.stage, Stage::Recorded(_))).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Shape>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of this shape, taken out so that other threads need not wait.
    fn take(&self, input: [usize; 4]) -> Shape {
        let (thread, mut shapes) = (thread::current().id(), self.lock());
        let used = shapes.iter().map(|shape| shape.used).max().unwrap_or(0) + 1;
        match shapes.iter().position(|shape| shape.thread == thread && shape.input == input) {
            Some(at) => Shape { used, ..shapes.remove(at) },
            None => Shape { thread, input, used, stage: Stage::Asked(0) },
        }
    }

    /// Whether there is room for another recording, made where one lies idle.
    fn has_room(&self, now: u64) -> bool {
        let mut shapes = self.lock();
        let recorded = |shape: &Shape| matches!(shape.stage, Stage::New(_) | Stage::Recorded(_));
        if shapes.iter().filter(|shape| recorded(shape)).count() < MOST {
            return true;
        }
        let oldest = shapes.iter_mut().filter(|shape| recorded(shape)).min_by_key(|shape| shape.used);
        match oldest {
            Some(oldest) if now - oldest.used > IDLE => {
                oldest.stage = Stage::Asked(0);
                true
            }
            _ => false,
        }
    }

    fn put_back(&self, shape: Shape) {
        let mut shapes = self.lock();
        shapes.insert(0, shape);
        shapes.truncate(SHAPES);
    }

    /// What the network says, and what is known of the shape thereafter.
    fn step(&self, images: Tensor<4>, stage: Stage, now: u64) -> (SegLogits, Stage) {
        match stage {
            Stage::Asked(passes) if passes >= BEFORE && self.has_room(now) => {
                let said = self.network.predict_logits(images.clone());
                let stage = Pass::record(&self.network, images, &said).map_or(Stage::Refused, Stage::New);
                (said, stage)
            }
            Stage::Asked(passes) => (self.network.predict_logits(images), Stage::Asked(passes + 1)),
            Stage::New(pass) => {
                let said = self.network.predict_logits(images.clone());
                // SAFETY: the network is held here and does not change.
                let same = unsafe { pass.replay(images) }.is_some_and(|replayed| is_close(&said, &replayed));
                (said, if same { Stage::Recorded(pass) } else { Stage::Refused })
            }
            // SAFETY: as above.
            Stage::Recorded(pass) => match unsafe { pass.replay(images.clone()) } {
                Some(said) => (said, Stage::Recorded(pass)),
                None => (self.network.predict_logits(images), Stage::Refused),
            },
            Stage::Refused => (self.network.predict_logits(images), Stage::Refused),
        }
    }
}

impl<N: Network> Network for Replayed<N> {
    fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
        if !kernels::can_record(&images) {
            return self.network.predict_logits(images);
        }
        let Shape { thread, input, used, stage } = self.take(images.dims());
        let (said, stage) = self.step(images, stage, used);
        self.put_back(Shape { thread, input, used, stage });
        said
    }

    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn padded(&self, side: usize) -> usize {
        self.network.padded(side)
    }

    fn activations(&self, size: (usize, usize)) -> usize {
        self.network.activations(size)
    }

    fn for_inference(self) -> Self {
        Self::new(self.network.for_inference())
    }
}

impl Pass {
    /// Records a pass of which it is known what the network said.
    fn record(network: &dyn Network, images: Tensor<4>, said: &SegLogits) -> Option<Self> {
        let (maps, votes) = (said.maps.dims(), said.votes.as_ref().map(Tensor::dims));
        let parts = |said: SegLogits| -> Vec<Tensor<1>> {
            [said.maps.flatten(0, 3)].into_iter().chain(said.votes.map(|votes| votes.flatten(0, 2))).collect()
        };
        let shape = images.dims();
        let function = |mut inputs: Vec<Tensor<1>>| parts(network.predict_logits(inputs.remove(0).reshape(shape)));
        let recording = Recording::new(vec![images.flatten(0, 3)], &function)?;
        Some(Self { recording, maps, votes })
    }

    /// # Safety
    /// The network that was recorded is still there, and has not changed.
    unsafe fn replay(&self, images: Tensor<4>) -> Option<SegLogits> {
        // SAFETY: by the caller's word.
        let mut parts = unsafe { self.recording.replay(vec![images.flatten(0, 3)]) }?.into_iter();
        let maps = parts.next()?.reshape(self.maps);
        Some(SegLogits { maps, votes: self.votes.and_then(|votes| Some(parts.next()?.reshape(votes))) })
    }
}

/// Whether two passes said the same up to rounding.
fn is_close(said: &SegLogits, replayed: &SegLogits) -> bool {
    fn close<const D: usize>(said: Tensor<D>, replayed: Tensor<D>) -> bool {
        let largest = said.clone().abs().max();
        let ratio = (said - replayed).abs().max() / largest.clamp_min(f32::MIN_POSITIVE);
        ratio.into_scalar::<f32>() <= TOLERANCE // not for what is not a number
    }
    let votes = match (said.votes.clone(), replayed.votes.clone()) {
        (Some(said), Some(replayed)) => close(said, replayed),
        (said, replayed) => said.is_none() && replayed.is_none(),
    };
    close(said.maps.clone(), replayed.maps.clone()) && votes
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::Config;
    use crate::infer::toy::{Toy, noise};

    /// The device of these tests, if it is a GPU, or a driver that stands for one.
    fn gpu() -> Option<Device> {
        let name = std::env::var("STRUCTTOKEN_TEST_DEVICE").unwrap_or_default();
        if name.is_empty() || name == "cpu" {
            eprintln!("skipped: STRUCTTOKEN_TEST_DEVICE names no GPU");
            return None;
        }
        Some(crate::device::open(&name).unwrap().0)
    }

    #[test]
    fn the_cpu_records_nothing() {
        let (toy, images) = (Toy::new(3), noise(1, [2, 3, 12, 16]));
        let replayed = Replayed::new(toy);
        let values = |said: SegLogits| said.maps.into_data().try_to_vec::<f32>().unwrap();
        let expected = values(Toy::new(3).predict_logits(images.clone()));
        for _ in 0..5 {
            assert_eq!(values(replayed.predict_logits(images.clone())), expected);
        }
        assert_eq!((replayed.recordings(), replayed.lock().len()), (0, 0));
    }

    /// Every decoder over a transformer and over convolutions.
    #[test]
    fn a_gpu_says_the_same_when_it_replays() {
        let Some(device) = gpu() else { return };
        let vit = "type = \"vit\"\nembed_dim = 24\ndepth = 2\nnum_heads = 2\npatch_size = 8\nimg_size = [32, 32]";
        let unet = "type = \"unet\"\ndepths = [1, 1, 1, 1]";
        let decoders = [
            "type = \"structtoken\"\nnum_blocks = 1",
            "type = \"structtoken\"\nblock = \"cse\"\nnum_blocks = 1",
            "type = \"structtoken\"\nblock = \"sse\"\nnum_blocks = 1",
            "type = \"fcn\"\nchannels = 32",
            "type = \"segmenter\"",
            "type = \"knet\"",
            "type = \"maskformer\"\nnum_queries = 7",
            "type = \"mask2former\"\nnum_queries = 7",
            "type = \"eomt\"\nnum_queries = 7",
        ];
        for backbone in [vit, unet] {
            for decoder in decoders {
                let text = format!("[model.backbone]\n{backbone}\n[model.decoder]\n{decoder}");
                let Ok(recipe) = Config::parse(&text, "replayed", &[]) else {
                    assert!(decoder.contains("eomt") && backbone == unet, "{text}");
                    continue;
                };
                let plain = recipe.model.init(3, 7, &device).for_inference();
                let replayed = Replayed::new(plain.clone());
                let started = std::time::Instant::now();
                for turn in 0..6 {
                    let images = noise(turn, [2, 3, 32, 32]).to_device(&device);
                    let (said, expected) = (replayed.predict_logits(images.clone()), plain.predict_logits(images));
                    assert!(is_close(&expected, &said), "{text}: turn {turn}");
                }
                eprintln!("{:.1} s: {} recordings: {text}", started.elapsed().as_secs_f64(), replayed.recordings());
                assert_eq!(replayed.recordings(), 1, "{text}");
            }
        }
    }
}
