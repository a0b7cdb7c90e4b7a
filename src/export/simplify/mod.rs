//! The same graph in fewer and larger operations. No result that stays gets another value: it can still be compared
//! with the recorded pass.

mod affine;
mod broadcast;
mod grouped;
mod linear;
mod norm;
mod resample;
mod slices;
mod transposes;

use crate::error::Result;
use crate::export::graph::Graph;

/// Puts the operations of a graph together.
///
/// # Errors
/// None is known.
pub(super) fn simplify(graph: &mut Graph) -> Result<()> {
    graph.without_unused();
    linear::without_reshapes(graph);
    norm::layer_norms(graph);
    resample::resizes(graph);
    grouped::convolutions(graph);
    slices::rejoined(graph);
    graph.without_unused();
    while affine::fold(graph) {
        graph.without_unused();
    }
    broadcast::smaller_operands(graph);
    transposes::sink(graph);
    graph.without_unused();
    broadcast::rows(graph);
    Ok(())
}
