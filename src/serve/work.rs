//! Jobs that wait for the inference thread, and its answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::image::{Image, Labels};
use crate::report::TokenBlock;
use crate::serve::error::Fault;
use crate::serve::gate::Permit;
use crate::serve::loaded::Loaded;

/// An image to be labelled.
pub(super) struct Job {
    pub(super) model: Arc<Loaded>,
    pub(super) picture: Picture,
    pub(super) wanted: Wanted,
    /// What it holds of the queue, until it is answered.
    pub(super) permit: Permit,
    /// When it was accepted.
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<Answer, Fault>>,
}

/// An image as it came; its size has been looked at.
pub(super) enum Picture {
    /// The bytes of a file, with the height and width that its header states.
    File(Bytes, (usize, usize)),
    /// Pixels.
    Pixels(Image),
}

/// What an answer needs besides the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Labels,
    Confidence,
    /// Confidence, and the tokens after every block.
    Tokens,
}

/// An image with its labels.
pub(super) struct Answer {
    pub(super) model: Arc<Loaded>,
    pub(super) image: Image,
    pub(super) labels: Labels,
    /// The probability of each label, where it is wanted.
    pub(super) confidence: Vec<f32>,
    /// Where they are wanted, and the decoder has them.
    pub(super) tokens: Option<Tokens>,
    pub(super) timing: Timing,
    /// Kept until the answer is written.
    pub(super) permit: Permit,
}

/// The tokens of all blocks.
pub(super) struct Tokens {
    pub(super) blocks: Vec<TokenBlock>,
    /// Width and height in pixels of the image that they span.
    pub(super) span: (f64, f64),
}

/// How long an answer took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    pub(super) queue: Duration,
    pub(super) decode: Duration,
    pub(super) infer: Duration,
    pub(super) encode: Duration,
}

impl Timing {
    /// The parts by name.
    pub(super) fn parts(&self) -> [(&'static str, Duration); 4] {
        [("queue", self.queue), ("decode", self.decode), ("infer", self.infer), ("encode", self.encode)]
    }

    /// As the header `Server-Timing` has it.
    pub(super) fn header(&self) -> String {
        let part = |(name, time): (&str, Duration)| format!("{name};dur={:.2}", time.as_secs_f64() * 1e3);
        self.parts().map(part).join(", ")
    }
}
