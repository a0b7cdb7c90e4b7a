//! One forward pass: whether it trains, which paths it drops, and what it shows on the way.

use std::cell::{Cell, RefCell};

use burn::module::ParamId;
use burn::tensor::{Tensor, TensorData};

use crate::rng::Rng;

/// Goes down through a model with its input.
///
/// It answers which samples a [`DropPath`](super::DropPath) keeps, and records activations by name for those who want
/// to look: tests, and pictures of structure tokens.
#[derive(Default)]
pub struct ForwardContext<'a> {
    keep: Option<RefCell<Keep<'a>>>,
    trace: Option<RefCell<Vec<(String, TensorData)>>>,
    scope: RefCell<Vec<String>>,
    progress: f64,
    told_progress: Cell<bool>,
    statistics: RefCell<Vec<Statistic>>,
    draws: RefCell<Vec<(usize, f64)>>,
}

/// What a batch says of a parameter that follows the batches instead of a gradient: a batch norm's mean or variance.
#[derive(Clone, Debug)]
pub struct Statistic {
    /// The parameter.
    pub id: ParamId,
    /// The value of this batch, flat and without autodiff.
    pub value: Tensor<1>,
    /// The share of this batch in what the parameter is next.
    pub momentum: f64,
}

impl Statistic {
    /// The parameter after this batch, from its values before it, which are flat and without autodiff.
    #[must_use]
    pub fn after(&self, before: Tensor<1>) -> Tensor<1> {
        before * (1.0 - self.momentum) + self.value.clone() * self.momentum
    }
}

/// (batch size, drop rate) to one flag per sample: kept?
type Keep<'a> = Box<dyn FnMut(usize, f64) -> Vec<bool> + 'a>;

impl<'a> ForwardContext<'a> {
    /// Inference: nothing is dropped, nothing recorded.
    pub fn eval() -> Self {
        Self::default()
    }

    /// Training: paths are dropped as drawn from `rng`.
    pub fn train(mut rng: Rng) -> Self {
        Self::train_with(move |batch, rate| (0..batch).map(|_| f64::from(rng.uniform()) >= rate).collect())
    }

    /// Training with given decisions, in the order in which the model asks: (batch size, rate) to one flag per sample.
    pub fn train_with(keep: impl FnMut(usize, f64) -> Vec<bool> + 'a) -> Self {
        Self { keep: Some(RefCell::new(Box::new(keep))), ..Self::default() }
    }

    /// The same pass at a point of training: 0 at its first step, 1 after the last.
    #[must_use]
    pub fn at(mut self, progress: f64) -> Self {
        self.progress = progress;
        self
    }

    /// How far training has come, from 0 to 1.
    pub fn progress(&self) -> f64 {
        self.told_progress.set(true);
        self.progress
    }

    /// Whether anybody has asked for that.
    pub(crate) fn has_told_progress(&self) -> bool {
        self.told_progress.get()
    }

    /// Is this a pass of training?
    pub fn trains(&self) -> bool {
        self.keep.is_some()
    }

    /// Are predictions wanted that inference does without: those that are only trained, or looked at?
    pub fn wants_all(&self) -> bool {
        self.trains() || self.is_traced()
    }

    /// Leaves what this batch says of a parameter that follows the batches.
    pub fn follow(&self, statistic: Statistic) {
        self.statistics.borrow_mut().push(statistic);
    }

    /// What was left by [`ForwardContext::follow`].
    pub fn take_statistics(&self) -> Vec<Statistic> {
        self.statistics.take()
    }

    /// The same pass, recording every activation that has a name.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.trace = Some(RefCell::default());
        self
    }

    /// What each sample's branch, or each value, is multiplied by: 0 where it is dropped, else `1 / (1 - rate)`. `None`
    /// outside of training.
    pub fn factors(&self, count: usize, rate: f64) -> Option<Vec<f32>> {
        let factor = |kept| if kept { (1.0 / (1.0 - rate)) as f32 } else { 0.0 };
        self.kept(count, rate).map(|kept| kept.into_iter().map(factor).collect())
    }

    /// Which samples keep a branch; `None` outside of training.
    pub fn kept(&self, count: usize, rate: f64) -> Option<Vec<bool>> {
        let kept = (self.keep.as_ref()?.borrow_mut())(count, rate);
        self.draws.borrow_mut().push((count, rate));
        Some(kept)
    }

    /// What has been asked of [`ForwardContext::kept`]: counts and rates, in order.
    pub fn draws(&self) -> Vec<(usize, f64)> {
        self.draws.borrow().clone()
    }

    /// Names recorded inside of `body` start with `scope.`.
    pub fn within<T>(&self, scope: &str, body: impl FnOnce() -> T) -> T {
        self.scope.borrow_mut().push(scope.to_owned());
        let result = body();
        self.scope.borrow_mut().pop();
        result
    }

    /// Whether anything is recorded.
    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Keeps a copy of `x` under `name`, if the pass is traced.
    pub fn record<const D: usize>(&self, name: &str, x: &Tensor<D>) {
        if let Some(trace) = &self.trace {
            let mut name_parts = self.scope.borrow().clone();
            name_parts.push(name.to_owned());
            trace.borrow_mut().push((name_parts.join("."), super::fetch(x.clone())));
        }
    }

    /// What was recorded, in order.
    pub fn into_trace(self) -> Vec<(String, TensorData)> {
        self.trace.map(RefCell::into_inner).unwrap_or_default()
    }
}
