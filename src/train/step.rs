//! One iteration: batches, loss, gradients.

use super::buckets::Buckets;
use super::forward_pass::{Place, StepContext, Trainable, context_of, forward, upload};
use super::gradients::Gradients;
use super::last_pass::{LastPass, Watched};
use super::passes::{self, Passes, StepOutput};
use super::recorded_pass::RecordedPass;
use super::state::TrainState;
use crate::error::Result;
use crate::group::ordered_sum::{self, PairwiseSum};
use crate::layers::ForwardContext;
use crate::loader::Loader;

impl<M: Trainable> TrainState<M> {
    /// The loss and the gradients of the batch of iteration `it`, before which the run has come as far as `progress`.
    /// `loader` gives the batches of this process's passes. Of the network only running statistics change.
    ///
    /// # Errors
    /// An image that cannot be had, by any process of the group, or one that has left it.
    pub(super) fn gradients(
        &mut self,
        (loader, buckets, recorded): (&mut Loader, &mut Buckets, &mut RecordedPass<M>),
        step: &StepContext,
        (it, progress): (u64, f64),
    ) -> Result<StepOutput> {
        let own = self.passes((loader, buckets, recorded), step, (it, progress));
        let all = match step.group.is_alone() {
            true => passes::alone(own?),
            false => passes::of_all(step.group, buckets, (step.config.accumulate, &self.model), own)?,
        };
        for statistics in all.statistics {
            let context = ForwardContext::eval().at(progress);
            statistics.into_iter().for_each(|statistic| context.follow(statistic));
            let model = self.model.clone();
            self.model = model.with_statistics(&context);
        }
        Ok(all.output)
    }

    /// This process's passes, added by the tree as far as they can be. Among several processes the last has no backward
    /// pass yet.
    fn passes(
        &self,
        (loader, buckets, recorded): (&mut Loader, &Buckets, &mut RecordedPass<M>),
        step: &StepContext,
        at: (u64, f64),
    ) -> Result<Passes> {
        let (passes, group) = (step.config.accumulate, step.group);
        let own = ordered_sum::share(passes, group.rank(), group.size());
        let mut found = Passes::default();
        for tree in ordered_sum::subtrees(passes, &own) {
            let mut sum = PairwiseSum::default();
            for pass in tree {
                let last = pass + 1 == own.end && !group.is_alone();
                let watched = (last && buckets.watch()).then(|| Watched::new(&self.model)).flatten();
                let batch = upload(loader.next()?, step, &self.model);
                let place = Place { iteration: at.0, progress: at.1, pass: pass as u64 };
                let (forward, backward) = match watched {
                    Some(watched) => {
                        let forward = forward(&self.model, batch, step, (place, &context_of(step, place))).0;
                        let loss = forward.loss.clone();
                        (forward, LastPass::ToCome(Box::new((loss, watched))))
                    }
                    // Before anything is read: a device computes what it was asked for while the next is being asked.
                    None => {
                        let (forward, gradients) = recorded.run(&self.model, batch, step, place);
                        (forward, LastPass::Made(gradients))
                    }
                };
                if !found.push(forward, 1.0 / passes as f64) {
                    return Ok(found);
                }
                let gradients = match backward {
                    LastPass::Made(gradients) if !last => gradients,
                    backward => {
                        (found.last, found.gradients.last) = (Some(backward), sum);
                        return Ok(found);
                    }
                };
                sum.push(gradients, Gradients::plus);
            }
            found.gradients.sums.extend(sum.finish(Gradients::plus));
        }
        Ok(found)
    }
}
