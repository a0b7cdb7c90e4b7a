//! Resizes, which are products with sparse matrices, to the one operation.

use crate::export::ends::{Sampling, factor, resize};
use crate::export::graph::{Dim, Graph, Id};
use crate::layers::resize::{Axis, Mode};

/// A resize of a map `[b, h, w, c]`, or of planes `[b, c, h, w]`.
struct Found {
    x: Id,
    size: [usize; 2],
    channels_last: bool,
    sampling: Sampling,
}

/// Finds a product with such a matrix along the rows, and one along the columns after it.
pub(super) fn resizes(graph: &mut Graph) {
    let makers = graph.makers();
    let of = |at: usize| {
        let sampled = |sampling| map(graph, &makers, at, sampling).or_else(|| planes(graph, &makers, at, sampling));
        sampled(Sampling::Linear).or_else(|| sampled(Sampling::Nearest)).or_else(|| doubled(graph, &makers, at))
    };
    let mut replaced = (0..graph.nodes.len()).map(of).collect::<Vec<_>>().into_iter();
    for node in std::mem::take(&mut graph.nodes) {
        let Some(Found { x, size, channels_last, sampling }) = replaced.next().flatten() else {
            graph.nodes.push(node);
            continue;
        };
        if channels_last {
            let planes = graph.transpose(x, &[0, 3, 1, 2]);
            let resized = resize(graph, planes, size, sampling);
            graph.transpose(resized, &[0, 2, 3, 1]);
        } else {
            resize(graph, x, size, sampling);
        }
        if let Some(last) = graph.nodes.last_mut() {
            last.output = node.output;
        }
    }
}

/// A product along the columns of a map `[b, h, w, c]`, the matrix first.
fn map(graph: &Graph, makers: &[Option<usize>], at: usize, sampling: Sampling) -> Option<Found> {
    let node = Some(&graph.nodes[at]).filter(|node| node.op == "MatMul")?;
    let &[matrix, x] = &node.inputs[..] else { return None };
    let &[_, Dim::Fixed(height), Dim::Fixed(w), _] = graph.shape(x) else { return None };
    let width = samples(graph, matrix, 4, w, sampling)?;
    // The product along the rows: `[1, oh, h]` with `[b, h, w * c]`, back to `[b, oh, w, c]`.
    let rows = || {
        let made = |id: Id, op: &str| makers[id].map(|at| &graph.nodes[at]).filter(|node| node.op == op);
        let product = made(made(x, "Reshape")?.inputs[0], "MatMul")?;
        let map = made(product.inputs[1], "Reshape")?.inputs[0];
        let &[_, Dim::Fixed(h), Dim::Fixed(same), _] = graph.shape(map) else { return None };
        (same == w && samples(graph, product.inputs[0], 3, h, sampling)? == height).then_some(map)
    };
    Some(Found { x: rows().unwrap_or(x), size: [height, width], channels_last: true, sampling })
}

/// A product along the columns of planes `[b, c, h, w]`, the matrix last, after one along the rows.
fn planes(graph: &Graph, makers: &[Option<usize>], at: usize, sampling: Sampling) -> Option<Found> {
    let node = Some(&graph.nodes[at]).filter(|node| node.op == "MatMul")?;
    let &[between, matrix] = &node.inputs[..] else { return None };
    let &[_, _, Dim::Fixed(height), Dim::Fixed(w)] = graph.shape(between) else { return None };
    let width = turned_samples(graph, matrix, w, sampling)?;
    let rows = || {
        let product = makers[between].map(|at| &graph.nodes[at]).filter(|node| node.op == "MatMul")?;
        let &[rows, x] = &product.inputs[..] else { return None };
        let &[_, _, Dim::Fixed(h), _] = graph.shape(x) else { return None };
        (samples(graph, rows, 4, h, sampling)? == height).then_some(x)
    };
    Some(Found { x: rows().unwrap_or(between), size: [height, width], channels_last: false, sampling })
}

/// A map whose rows and then columns are each there twice: `[b h, 1, w, c]` to `[b h, 2, w, c]`, and `[b 2h w, 1, c]`
/// to `[b 2h w, 2, c]`.
fn doubled(graph: &Graph, makers: &[Option<usize>], at: usize) -> Option<Found> {
    let made = |id: Id, op: &str| makers[id].map(|at| &graph.nodes[at]).filter(|node| node.op == op);
    let last = Some(&graph.nodes[at]).filter(|node| node.op == "Reshape")?;
    let columns = made(last.inputs[0], "Expand")?;
    let between = made(columns.inputs[0], "Reshape")?;
    let rows = made(between.inputs[0], "Expand")?;
    let x = made(rows.inputs[0], "Reshape")?.inputs[0];
    let &[batch, Dim::Fixed(h), Dim::Fixed(w), channels] = graph.shape(x) else { return None };
    let &[_, Dim::Fixed(1), width, depth] = graph.shape(rows.inputs[0]) else { return None };
    let &[_, Dim::Fixed(2), _, _] = graph.shape(rows.output) else { return None };
    let &[_, Dim::Fixed(1), alone] = graph.shape(columns.inputs[0]) else { return None };
    let &[_, Dim::Fixed(2), _] = graph.shape(columns.output) else { return None };
    let fits = width == Dim::Fixed(w) && depth == channels && alone == channels;
    let wanted = [batch, Dim::Fixed(2 * h), Dim::Fixed(2 * w), channels];
    (fits && graph.shape(last.output) == wanted).then_some(Found {
        x,
        size: [2 * h, 2 * w],
        channels_last: true,
        sampling: Sampling::Nearest,
    })
}

/// The rows of a sampling matrix of `rank` axes over `from` samples.
fn samples(graph: &Graph, id: Id, rank: usize, from: usize, sampling: Sampling) -> Option<usize> {
    let values = graph.floats(id)?;
    let shape = graph.shape(id);
    let to = match shape {
        [before @ .., Dim::Fixed(to), Dim::Fixed(n)]
            if *n == from && before.iter().all(|side| *side == Dim::Fixed(1)) =>
        {
            *to
        }
        _ => return None,
    };
    let same = shape.len() == rank && to != from && is(from, to, sampling, |row, column| values[row * from + column]);
    same.then_some(to)
}

/// The columns of such a matrix, turned.
fn turned_samples(graph: &Graph, id: Id, from: usize, sampling: Sampling) -> Option<usize> {
    let values = graph.floats(id)?;
    let &[Dim::Fixed(n), Dim::Fixed(to)] = graph.shape(id) else { return None };
    let same = n == from && to != from && is(from, to, sampling, |row, column| values[column * to + row]);
    same.then_some(to)
}

fn is(from: usize, to: usize, sampling: Sampling, value: impl Fn(usize, usize) -> f32) -> bool {
    let mode = match sampling {
        Sampling::Linear => Mode::Bilinear,
        Sampling::Nearest => Mode::Nearest,
    };
    let axis = Axis::new(from, to, mode, false);
    let expected = |row: usize, column: usize| -> f32 {
        axis.taps(row).iter().filter(|(source, _)| *source == column).map(|(_, weight)| weight).sum()
    };
    // In the numbers that the file holds.
    let factor = factor(from, to);
    let exact = |row: usize| (row as f32 / factor).floor() as usize == axis.taps(row)[0].0;
    if sampling == Sampling::Nearest && !(0..to).all(exact) {
        return false;
    }
    (0..to).all(|row| (0..from).all(|column| (value(row, column) - expected(row, column)).abs() < 1e-6))
}
