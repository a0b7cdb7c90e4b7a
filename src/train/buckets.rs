//! The sum of gradients over all processes, begun while the backward pass of the last pass still computes: parameters
//! whose gradients are ready are sent together, in buckets (PyTorch's DistributedDataParallel, arXiv 2006.15704).
//!
//! The first iteration sends everything at its end, and shows in which order gradients become ready. Of that the
//! buckets are made, the same for all processes. The next ones add in both ways in turn, and the sum goes on to begin
//! early where that pays: where all processors compute and nothing has to go over a wire, it does not. Neither way
//! changes a byte of the sum, which is made value by value.

use std::collections::HashSet;
use std::sync::mpsc::Receiver;
use std::thread::Builder;
use std::time::Instant;

use burn::module::Module;

use super::gradients::{self, Gradients, Layout};
use super::last_pass::{Earlier, Entry, LastPass, Watched};
use crate::error::{Error, Result};
use crate::group::Group;
use crate::group::ordered_sum;
use crate::kernels::Values;
use crate::layers::parameters::{self, Node};

/// Values of a bucket: 16 MB. Of a small network a quarter.
const BUCKET: usize = 4 << 20;

/// Iterations that try each way.
const TRIALS: usize = 4;

/// It begins early where that takes less than this share of the time.
const WORTH: f64 = 0.9;

/// Which parameters are sent together, and whether that begins early.
#[derive(Default)]
pub(super) struct Buckets {
    /// By their numbers; made by the first iteration. None is left once there is nothing to gain.
    plan: Option<Vec<Vec<usize>>>,
    /// How long the last pass and the sum took at the end and early, in turn, in seconds.
    trials: Vec<f64>,
}

impl Buckets {
    /// The sum of the gradients of all passes of all processes, for which each makes its last backward pass.
    ///
    /// # Errors
    /// As those of [`Group`]; nothing of the network learns.
    pub(super) fn sum(
        &mut self,
        group: &dyn Group,
        passes: usize,
        model: &impl Module,
        (earlier, pass): (Earlier, LastPass),
    ) -> Result<Gradients> {
        let began = Instant::now();
        let mut buckets = match self.begins_early() {
            true => self.plan.clone().unwrap_or_default(),
            false => Vec::new(),
        };
        let (parameters, watched) = match pass {
            LastPass::ToCome(pass) => {
                let (loss, Watched { parameters, ready, hook }) = *pass;
                (parameters, Ok((loss, ready, hook)))
            }
            LastPass::Made(gradients) => (parameters::nodes(model), Err(gradients)),
        };
        group.computes(!buckets.is_empty());
        let processes = Processes { group, passes, parameters: &parameters, earlier: &earlier };
        let (last, early) = match watched {
            Ok((loss, ready, hook)) => std::thread::scope(|scope| {
                let send = || processes.send_early(&buckets, ready);
                let sending =
                    Builder::new().name("gradients".to_owned()).spawn_scoped(scope, send).map_err(no_thread)?;
                let last = Gradients::of(model, loss.backward());
                drop(hook);
                let early = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                Ok((last, early?))
            })?,
            Err(last) => (last, processes.early()),
        };
        let Early { order, values, mut sums } = early;
        for bucket in &buckets[sums.len()..] {
            sums.push(processes.sum(&processes.entries(bucket), |at| last.values(&parameters[bucket[at]].name))?);
        }

        // What was ready is the whole gradient, unless something that is no kernel has used the parameter too.
        let is_whole = |number: &usize| match (&values[*number], last.values(&parameters[*number].name)) {
            (Some(early), Some(whole)) => early.same(&whole),
            (early, _) => early.is_none(),
        };
        let (layout, whole) = processes.agree(earlier.layout(&last), buckets.iter().flatten().all(is_whole))?;
        if !whole {
            (self.plan, buckets, sums) = (Some(Vec::new()), Vec::new(), Vec::new());
        }
        let mut parts: Vec<Vec<Entry>> = buckets.iter().map(|bucket| processes.entries(bucket)).collect();
        let sent: HashSet<&str> = parts.iter().flatten().map(|(name, _)| *name).collect();
        let rest = layout.iter().map(|(name, len)| (name.as_str(), *len));
        let rest: Vec<Entry> = rest.filter(|(name, _)| !sent.contains(name)).collect();
        if !rest.is_empty() {
            sums.push(processes.sum(&rest, |at| last.values(rest[at].0))?);
            parts.push(rest);
        }
        match self.plan {
            None => {
                let order = group.agree(order.into_iter().filter(is_whole).collect())?;
                self.plan = Some(divided(order, |number| parameters[number].len));
            }
            Some(_) => self.tried(group, began.elapsed().as_secs_f64())?,
        }
        group.computes(false);
        let device = earlier.device(&last)?;
        let mut sum = Gradients::default();
        for ((name, len), values) in parts.iter().zip(&sums).flat_map(|(part, sum)| cut(part, sum)) {
            // What no process has is not there.
            if layout.get(name) == Some(&len) {
                sum.insert(name, values, &device);
            }
        }
        Ok(sum)
    }
}

impl Buckets {
    /// Whether the last pass has to be watched.
    pub(super) fn watch(&self) -> bool {
        self.plan.as_ref().is_none_or(|plan| !plan.is_empty())
    }

    fn begins_early(&self) -> bool {
        self.trials.len() % 2 == 1 || self.trials.len() == 2 * TRIALS
    }

    /// Takes in how long one way took, and after the last trial ends what does not pay.
    fn tried(&mut self, group: &dyn Group, seconds: f64) -> Result<()> {
        if self.trials.len() == 2 * TRIALS || !self.watch() {
            return Ok(());
        }
        self.trials.push(seconds);
        if self.trials.len() == 2 * TRIALS {
            let best = |way| self.trials.iter().skip(way).step_by(2).copied().fold(f64::INFINITY, f64::min);
            if !group.agree(best(1) < WORTH * best(0))? {
                self.plan = Some(Vec::new());
            }
        }
        Ok(())
    }
}

/// This process among the others.
struct Processes<'a> {
    group: &'a dyn Group,
    passes: usize,
    parameters: &'a [Node],
    earlier: &'a Earlier,
}

/// What was sent while the backward pass went on.
struct Early {
    /// The parameters whose gradients became ready, in that order.
    order: Vec<usize>,
    /// By parameter.
    values: Vec<Option<Values>>,
    /// Of the first buckets.
    sums: Vec<Vec<f32>>,
}

impl<'a> Processes<'a> {
    fn entries(&self, bucket: &[usize]) -> Vec<Entry<'a>> {
        bucket.iter().map(|number| (self.parameters[*number].name.as_str(), self.parameters[*number].len)).collect()
    }

    /// The sum over all passes of all processes, given that of the last of this one.
    fn sum(&self, part: &[Entry], last: impl Fn(usize) -> Option<Values>) -> Result<Vec<f32>> {
        ordered_sum::sum(self.group, self.passes, self.earlier.with(part, last))
    }

    /// Nothing yet.
    fn early(&self) -> Early {
        Early { order: Vec::new(), values: vec![None; self.parameters.len()], sums: Vec::new() }
    }

    /// One bucket after the other, each as soon as its gradients are ready, until no more become ready.
    fn send_early(&self, buckets: &[Vec<usize>], ready: Receiver<(usize, Values)>) -> Result<Early> {
        let mut early = self.early();
        for (number, values) in ready {
            early.order.push(number);
            early.values[number] = Some(values);
            let is_ready = |bucket: &&Vec<usize>| bucket.iter().all(|one| early.values[*one].is_some());
            while let Some(bucket) = buckets.get(early.sums.len()).filter(is_ready) {
                early.sums.push(self.sum(&self.entries(bucket), |at| early.values[bucket[at]].clone())?);
            }
        }
        Ok(early)
    }

    /// The gradients that any process has, and whether for all of them it is so.
    fn agree(&self, own: Layout, so: bool) -> Result<(Layout, bool)> {
        let all = self.group.gather_values(&(gradients::fingerprint(&own), so))?;
        let so = all.iter().all(|(_, so)| *so);
        if all.iter().all(|(layout, _)| *layout == all[0].0) {
            return Ok((own, so));
        }
        Ok((self.group.gather_values(&own)?.into_iter().flatten().collect(), so))
    }
}

fn no_thread(error: std::io::Error) -> Error {
    Error::new("cannot start a thread that sends gradients")
        .with_source(error)
        .with_hint("allow this user more processes (ulimit -u), or use fewer --threads")
}

/// The values of each parameter.
fn cut<'a>(part: &'a [Entry<'a>], mut values: &'a [f32]) -> impl Iterator<Item = (Entry<'a>, &'a [f32])> {
    part.iter().map(move |(name, len)| {
        let (own, others) = values.split_at(*len);
        values = others;
        ((*name, *len), own)
    })
}

/// Parameters in buckets, in the order in which their gradients become ready.
fn divided(order: Vec<usize>, len: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let all: usize = order.iter().map(|number| len(*number)).sum();
    let full = (all / 4).clamp(1, BUCKET);
    let (mut buckets, mut filled): (Vec<Vec<usize>>, usize) = (Vec::new(), full);
    for number in order {
        if filled >= full {
            buckets.push(Vec::new());
            filled = 0;
        }
        filled += len(number);
        buckets.last_mut().into_iter().for_each(|bucket| bucket.push(number));
    }
    buckets
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::ThreadId;

    use burn::module::{Param, ParamId};
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::group::tests::together;
    use crate::kernels;

    /// Takes one weight twice, once without a kernel, and not another at all.
    #[derive(Module, Debug)]
    struct Network {
        first: Param<Tensor<2>>,
        twice: Param<Tensor<2>>,
        never: Param<Tensor<2>>,
        last: Param<Tensor<2>>,
    }

    impl Network {
        fn new(device: &Device) -> Self {
            let mut seed = 0.0;
            let mut weight = || {
                seed += 1.0;
                let values = Tensor::<1>::from_data(TensorData::from([seed; 16]), device).cumsum(0).sin();
                Param::initialized(ParamId::new(), values.reshape([4, 4]).detach().require_grad())
            };
            Self { first: weight(), twice: weight(), never: weight(), last: weight() }
        }

        fn loss(&self, pass: usize, wild: bool) -> Tensor<1> {
            let x = Tensor::<1>::from_data(TensorData::from([pass as f32 + 1.0; 12]), &self.first.val().device());
            let x = x.cumsum(0).cos().reshape([3, 4]);
            let mut x = kernels::linear(x, self.first.val(), None);
            x = kernels::linear(x, self.twice.val(), None);
            if wild {
                x = x * self.twice.val().sum().unsqueeze();
            }
            kernels::linear(x, self.last.val(), None).powi_scalar(2).sum()
        }
    }

    /// Sends as its group does, and counts how often, by whether it is the thread that computes.
    struct Counted<'a>(&'a dyn Group, ThreadId, [AtomicUsize; 2]);

    impl Group for Counted<'_> {
        fn rank(&self) -> usize {
            self.0.rank()
        }

        fn size(&self) -> usize {
            self.0.size()
        }

        fn exchange(&self, values: &[f32], bounds: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
            self.0.exchange(values, bounds)
        }

        fn complete(&self, own: &[f32], values: &mut [f32], bounds: &[usize]) -> Result<()> {
            self.2[usize::from(std::thread::current().id() != self.1)].fetch_add(1, Ordering::SeqCst);
            self.0.complete(own, values, bounds)
        }

        fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.0.gather(own)
        }
    }

    const ITERATIONS: usize = 12;

    /// A sum: parameters and the bits of their values.
    type Bits = Vec<(String, Vec<u32>)>;

    /// The sums of iterations of four passes, of which those of `wild` use a weight without a kernel; and how often
    /// each thread has sent. `early_is_fast`: what a sum at the end takes longer.
    fn iterations(group: &dyn Group, wild: &[usize], early_is_fast: bool) -> (Vec<Bits>, Vec<[usize; 2]>) {
        let model = Network::new(&Device::flex().autodiff());
        let mut buckets = Buckets::default();
        let mut sent = Vec::new();
        let sums = (0..ITERATIONS).map(|iteration| {
            let counted = Counted(group, std::thread::current().id(), Default::default());
            let loss = |pass: usize| model.loss(4 * iteration + pass, wild.contains(&iteration));
            let own = ordered_sum::share(4, group.rank(), group.size());
            let mut earlier = Earlier::default();
            (own.start..own.end - 1).for_each(|pass| {
                earlier.last.push(Gradients::of(&model, loss(pass).backward()), Gradients::plus);
            });
            let watched = buckets.watch().then(|| Watched::new(&model).unwrap());
            let loss = loss(own.end - 1);
            let last = match watched {
                Some(watched) => LastPass::ToCome(Box::new((loss, watched))),
                None => LastPass::Made(Gradients::of(&model, loss.backward())),
            };
            let sum = buckets.sum(&counted, 4, &model, (earlier, last)).unwrap();
            if let Some(last) = buckets.trials.last_mut() {
                // What the clock says is a matter of the machine.
                *last = f64::from(u8::from((iteration % 2 == 0) != early_is_fast));
            }
            sent.push(counted.2.map(AtomicUsize::into_inner));
            let bits = |name: &str| sum.values(name).unwrap().as_ref().iter().map(|value| value.to_bits()).collect();
            sum.layout().map(|(name, _)| (name.clone(), bits(&name))).collect()
        });
        (sums.collect(), sent)
    }

    #[test]
    fn sums_that_begin_early_have_the_bytes_of_those_that_do_not() {
        for (wild, early_is_fast) in
            [(vec![], true), (vec![], false), (vec![0], true), (vec![5], true), (vec![2], true)]
        {
            let alone = together(1, |group| iterations(group, &wild, true)).swap_remove(0).0;
            assert_eq!(alone[0].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["first", "last", "twice"]);
            for size in [2, 4] {
                for (found, sent) in together(size, |group| iterations(group, &wild, early_is_fast)) {
                    assert!(found == alone, "{wild:?} on {size}");
                    // At the end at first, then in turn, then in the faster way.
                    let at_the_end = |iteration: usize| match iteration {
                        0 => true,
                        1..=8 => iteration % 2 == 1,
                        _ => !early_is_fast,
                    };
                    let expected = |iteration: usize| match (wild.as_slice(), at_the_end(iteration)) {
                        // The weight was never seen to be whole.
                        ([0], false) => [1, 2],
                        // What is sent again at the end, once it was not the whole; and no more early.
                        ([2], false) if iteration == 2 => [1, 3],
                        ([2], false) if iteration > 2 => [1, 0],
                        (_, true) => [1, 0],
                        (_, false) => [0, 3],
                    };
                    let expected: Vec<_> = (0..ITERATIONS).map(expected).collect();
                    assert_eq!(sent, expected, "{wild:?} on {size}, {early_is_fast}");
                }
            }
        }
    }

    #[test]
    fn buckets_are_filled_in_the_order_of_the_backward_pass() {
        assert_eq!(divided(vec![5, 3, 4, 0, 1], |_| 10), [vec![5, 3], vec![4, 0], vec![1]].map(Vec::from));
        assert_eq!(divided(vec![2, 1, 0], |number| [1, 100, 1][number]), [vec![2, 1], vec![0]]);
        assert!(divided(Vec::new(), |_| 1).is_empty());
    }
}
