//! Sums, such as those of gradients, whose bytes do not depend on how many processes add.
//!
//! A sum of `n` passes is a tree: of more than one pass, the sum of the first `2^k` of them, the largest power of two
//! below `n`, plus that of the rest. Each process has a run of passes, adds the whole subtrees in it, and the subtrees
//! of all are added by the same tree: every addition has the same two operands, wherever it is made.
//!
//! With powers of two every process has one subtree, and moves least: of `v` values it sends `v (n - 1) / n` to be
//! added, slice by slice, and as many that are added already, which is what a ring does.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::group::Group;

/// The passes out of `passes` that process `rank` of `size` does.
pub fn share(passes: usize, rank: usize, size: usize) -> Range<usize> {
    rank * passes / size..(rank + 1) * passes / size
}

/// Where the sum of more than one pass is divided.
fn middle(passes: &Range<usize>) -> usize {
    passes.start + passes.len().next_power_of_two() / 2
}

/// The largest subtrees of the sum of `passes` passes that lie in `own`, in their order.
pub fn subtrees(passes: usize, own: &Range<usize>) -> Vec<Range<usize>> {
    fn walk(tree: Range<usize>, own: &Range<usize>, found: &mut Vec<Range<usize>>) {
        if tree.is_empty() || tree.end <= own.start || own.end <= tree.start {
            return;
        }
        if own.start <= tree.start && tree.end <= own.end {
            return found.push(tree);
        }
        let middle = middle(&tree);
        walk(tree.start..middle, own, found);
        walk(middle..tree.end, own, found);
    }
    let mut found = Vec::new();
    walk(0..passes, own, &mut found);
    found
}

/// The sum of what is pushed, one pass after the other, by the tree. It holds no more than one value for each power of
/// two.
#[derive(Debug)]
pub struct PairwiseSum<T>(Vec<(usize, T)>);

impl<T> Default for PairwiseSum<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> PairwiseSum<T> {
    /// Takes in the next pass; `add` gets the earlier operand first.
    pub fn push(&mut self, value: T, mut add: impl FnMut(T, T) -> T) {
        let (mut count, mut sum) = (1, value);
        while let Some((_, earlier)) = self.0.pop_if(|(earlier, _)| *earlier == count) {
            sum = add(earlier, sum);
            count *= 2;
        }
        self.0.push((count, sum));
    }

    /// The sum with a value that comes last, or with a part of all of these values: `add` gets the earlier operand
    /// first.
    pub fn fold<U>(&self, last: U, mut add: impl FnMut(&T, U) -> U) -> U {
        self.0.iter().rev().fold(last, |sum, (_, earlier)| add(earlier, sum))
    }

    /// The sum; none of nothing.
    pub fn finish(self, mut add: impl FnMut(T, T) -> T) -> Option<T> {
        self.0.into_iter().map(|(_, sum)| sum).rev().reduce(|later, earlier| add(earlier, later))
    }
}

/// The sum of all passes out of `passes`, to which every process brings the sums of its [`subtrees`], all of one
/// length.
///
/// # Errors
/// As those of [`Group`], or sums that do not fit.
pub fn sum(group: &dyn Group, passes: usize, mut own: Vec<Vec<f32>>) -> Result<Vec<f32>> {
    let (rank, size) = (group.rank(), group.size());
    let trees = |rank| subtrees(passes, &share(passes, rank, size));
    let length = own.first().map_or(0, Vec::len);
    if own.is_empty() || own.len() != trees(rank).len() || own.iter().any(|values| values.len() != length) {
        return Err(Error::new("the sums of a process do not fit its passes"));
    }
    let bounds: Vec<usize> = (0..=size).map(|rank| (rank as u128 * length as u128 / size as u128) as usize).collect();
    let (received, theirs) = match own.as_slice() {
        // With powers of two the slices lie as they are sent.
        [all] => group.exchange(all, &bounds)?,
        several => {
            let mut flat = Vec::with_capacity(several.len() * length);
            for slice in bounds.windows(2) {
                several.iter().for_each(|values| flat.extend_from_slice(&values[slice[0]..slice[1]]));
            }
            let bounds: Vec<usize> = bounds.iter().map(|bound| bound * several.len()).collect();
            group.exchange(&flat, &bounds)?
        }
    };
    // It has been sent, and its memory takes the sum.
    let mut values = own.swap_remove(0);
    drop(own);
    let width = bounds[rank + 1] - bounds[rank];
    let mut leaves = Vec::with_capacity(size);
    for from in 0..size {
        let (trees, part) = (trees(from), &received[theirs[from]..theirs[from + 1]]);
        if part.len() != trees.len() * width {
            return Err(Error::new(format!("process {from} of {size} has other gradients than process {rank}")));
        }
        leaves.extend(trees.into_iter().enumerate().map(|(at, tree)| (tree, &part[at * width..][..width])));
    }
    let slice = add(passes, &leaves, width)?;
    drop(received);
    group.complete(&slice, &mut values, &bounds)?;
    Ok(values)
}

/// The tree of the sum, over leaves by their numbers.
enum Tree {
    Leaf(usize),
    Sum(Box<Tree>, Box<Tree>),
}

impl Tree {
    /// That of `passes`, whose subtrees are the next of `leaves`.
    fn new(
        passes: Range<usize>,
        leaves: &mut std::iter::Peekable<impl Iterator<Item = (usize, Range<usize>)>>,
    ) -> Result<Self> {
        if let Some((at, _)) = leaves.next_if(|(_, leaf)| *leaf == passes) {
            return Ok(Self::Leaf(at));
        }
        if passes.len() < 2 {
            return Err(Error::new(format!("pass {} is nobody's", passes.start)));
        }
        let middle = middle(&passes);
        let first = Self::new(passes.start..middle, leaves)?;
        Ok(Self::Sum(Box::new(first), Box::new(Self::new(middle..passes.end, leaves)?)))
    }

    /// How many sums wait for others at most.
    fn waiting(&self) -> usize {
        match self {
            Self::Leaf(_) => 0,
            Self::Sum(first, second) => first.waiting().max(second.waiting() + 1),
        }
    }

    /// The sum of all leaves into `sum`. `spare` holds sums that wait.
    fn add<'l>(&self, leaf: &impl Fn(usize) -> &'l [f32], sum: &mut [f32], spare: &mut [Vec<f32>]) {
        let plus = |sum: &mut [f32], more: &[f32]| sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        match self {
            Self::Leaf(at) => sum.copy_from_slice(leaf(*at)),
            Self::Sum(first, second) => {
                first.add(leaf, sum, spare);
                match (&**second, spare) {
                    (Self::Leaf(at), _) => plus(sum, leaf(*at)),
                    (second, [own, spare @ ..]) => {
                        second.add(leaf, &mut own[..sum.len()], spare);
                        plus(sum, own);
                    }
                    // There are as many as can wait.
                    (_, []) => {}
                }
            }
        }
    }
}

/// The sum of all passes, from the sums of subtrees, each of `width` values.
fn add(passes: usize, leaves: &[(Range<usize>, &[f32])], width: usize) -> Result<Vec<f32>> {
    /// Values that stay in the fastest cache with their operands.
    const BLOCK: usize = 2048;
    let tree = Tree::new(0..passes, &mut leaves.iter().map(|(leaf, _)| leaf.clone()).enumerate().peekable())?;
    let spare = || vec![vec![0.0; BLOCK]; tree.waiting()];
    let mut sum = vec![0.0; width];
    let add = |spare: &mut Vec<Vec<f32>>, (block, sum): (usize, &mut [f32])| {
        let count = sum.len();
        tree.add(&|at| &leaves[at].1[block * BLOCK..][..count], sum, spare);
    };
    match rayon::current_thread_index() {
        Some(_) => sum.par_chunks_mut(BLOCK).enumerate().for_each_init(spare, add),
        // A thread beside the pool adds by itself: those of the pool compute, and may wait for this one.
        None => {
            let mut spare = spare();
            sum.chunks_mut(BLOCK).enumerate().for_each(|block| add(&mut spare, block));
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::super::tests::together;
    use super::*;
    use crate::rng::Rng;

    fn text(passes: usize) -> String {
        let add = |a: String, b: String| format!("({a}+{b})");
        let mut sum = PairwiseSum::default();
        (0..passes).for_each(|pass| sum.push(pass.to_string(), add));
        sum.finish(add).unwrap_or_default()
    }

    #[test]
    fn the_tree_is_what_it_is_said_to_be() {
        let expected = ["", "0", "(0+1)", "((0+1)+2)", "((0+1)+(2+3))", "(((0+1)+(2+3))+4)", "(((0+1)+(2+3))+(4+5))"];
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(text), expected);
        for passes in 1..20 {
            let mut earlier = PairwiseSum::default();
            (0..passes - 1).for_each(|pass| earlier.push(pass.to_string(), |a, b| format!("({a}+{b})")));
            let last = (passes - 1).to_string();
            assert_eq!(earlier.fold(last, |earlier, sum| format!("({earlier}+{sum})")), text(passes));
        }
        assert_eq!(text(7), "(((0+1)+(2+3))+((4+5)+6))");
        assert_eq!(subtrees(8, &(4..8)), vec![4..8; 1]);
        assert_eq!(subtrees(6, &(0..3)), [0..2, 2..3]);
        assert_eq!(subtrees(6, &(3..6)), [3..4, 4..6]);
        assert!(subtrees(1, &(0..0)).is_empty());
    }

    /// Values of all sizes, whose sum changes with every change of order.
    fn value(pass: usize, at: usize) -> f32 {
        let mut rng = Rng::new(1, &[pass as u64, at as u64]);
        (rng.uniform() - 0.5) * 10f32.powi((rng.uniform() * 8.0) as i32)
    }

    #[test]
    fn any_number_of_processes_gives_the_same_bytes() {
        let length = 37;
        for passes in [1, 2, 3, 4, 5, 6, 7, 8, 12, 16] {
            let partial = |tree: &Range<usize>| -> Vec<f32> {
                let add = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(b).map(|(a, b)| a + b).collect();
                let mut sum = PairwiseSum::default();
                tree.clone().for_each(|pass| sum.push((0..length).map(|at| value(pass, at)).collect(), add));
                sum.finish(add).unwrap()
            };
            let expected: Vec<u32> = partial(&(0..passes)).into_iter().map(f32::to_bits).collect();
            for size in 1..=passes.min(9) {
                let found = together(size, |group| {
                    let own: Vec<Vec<f32>> =
                        subtrees(passes, &share(passes, group.rank(), size)).iter().map(partial).collect();
                    sum(group, passes, own).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
                });
                assert!(found.iter().all(|found| *found == expected), "{passes} passes on {size}");
            }
            let straight: Vec<u32> =
                (0..length).map(|at| (0..passes).map(|pass| value(pass, at)).sum::<f32>().to_bits()).collect();
            assert!(passes < 4 || straight != expected, "{passes}: the order must be seen");
        }
    }

    #[test]
    fn sums_that_do_not_fit_are_refused() {
        let found = together(2, |group| sum(group, 4, vec![vec![1.0; 4]; 1 + group.rank()]).map(drop));
        assert!(found[1].is_err());
        let found = together(2, |group| sum(group, 2, vec![vec![1.0; 4 + 2 * group.rank()]]).map(drop));
        assert!(found.iter().all(|result| result.as_ref().unwrap_err().to_string().contains("other gradients")));
    }
}
