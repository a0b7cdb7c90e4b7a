//! Parameters of a decoder that stand for classes or queries before it has seen an image.

use burn::module::ParamId;

/// A parameter that holds one row of values for each class or query: a structure token, an embedding, a kernel.
///
/// Its values, flat, are the rows one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototypes {
    /// The parameter.
    pub id: ParamId,
    /// How many rows it holds.
    pub count: usize,
    /// Rows and columns of the map that a row of values is; none where it is a vector.
    pub grid: Option<[usize; 2]>,
    /// Whether each row is of a class; otherwise of a query that has none of its own.
    pub of_classes: bool,
}
