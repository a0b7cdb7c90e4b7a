//! Tables of positions, resized at load to the grid of the model; `src/backbone/vit.rs` resizes them again for images
//! of other sizes.
//!
//! A table of positions is a list, so its length alone does not tell its grid: 48 cells may be 6 x 8 or 8 x 6. The
//! model tells its own. A file's is what its metadata say, or else the shape of its structure tokens, which have the
//! same grid. Where neither says, a table that has as many cells as the model is taken as it is, but for a pretrained
//! backbone: those are trained on squares. What was taken for granted is said in the report.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::weights::bicubic::bicubic;
use crate::weights::report::{LoadReport, Resized, ShapesByName};
use crate::weights::state::{HostTensor, StateDict};

/// The metadata key that gives the grid of a file's `backbone.pos_embed`, as `32x40` (rows, columns).
pub const GRID_METADATA: &str = "grid";

pub(super) const POSITIONS: &str = "backbone.pos_embed";
const KERNELS: &str = "decoder.kernels";
const CLASS: &str = "backbone.cls_token";
const REGISTERS: &str = "backbone.register_tokens";

type Tensors<'a> = BTreeMap<String, Cow<'a, HostTensor>>;
type Grid = (usize, usize);

/// Makes the tables of a file fit the model of the given shapes, whose positions are those of `grid`, and notes it in
/// the report. What cannot be fitted stays as it is.
pub(super) fn fit_tables(
    tensors: &mut Tensors<'_>,
    state: &StateDict,
    model: &ShapesByName<'_>,
    grid: Option<Grid>,
    report: &mut LoadReport,
) {
    let file = Table::of(tensors, state);
    if let (Some(grid), Some(shape)) = (grid, model.get(POSITIONS)) {
        resize_position_table(tensors, &file, shape, grid, model, report);
    }
    if let (Some(tensor), Some(shape)) = (tensors.get(KERNELS), model.get(KERNELS))
        && let Some((fitted, from, to)) = resize_kernels(tensor, shape)
    {
        tensors.insert(KERNELS.to_owned(), Cow::Owned(fitted));
        report.resized.push(Resized { name: KERNELS.to_owned(), from, to, assumed: false });
    }
}

/// The square grid of `n` cells, if there is one.
pub(super) fn square(n: usize) -> Option<Grid> {
    let side = n.isqrt();
    (side > 0 && side * side == n).then_some((side, side))
}

fn cells(grid: Grid) -> Option<usize> {
    grid.0.checked_mul(grid.1).filter(|cells| *cells > 0)
}

fn parse_grid(text: &str) -> Option<Grid> {
    let (rows, columns) = text.split_once('x')?;
    Some((rows.trim().parse().ok()?, columns.trim().parse().ok()?))
}

/// What a file says of its table of positions.
#[derive(Debug, Default)]
struct Table {
    /// By the metadata, and by the structure tokens.
    stated: [Option<Grid>; 2],
    /// Has it a class token?
    class: bool,
    /// Its register tokens.
    registers: usize,
    /// Does it hold a whole network, which was made for one grid, or a backbone alone?
    whole: bool,
}

impl Table {
    fn of(tensors: &Tensors<'_>, state: &StateDict) -> Self {
        let shape = |name: &str| tensors.get(name).map(|tensor| tensor.shape.as_slice());
        let kernels = match shape(KERNELS) {
            Some(&[_, _, rows, columns]) => Some((rows, columns)),
            _ => None,
        };
        Self {
            stated: [state.metadata.get(GRID_METADATA).and_then(|text| parse_grid(text)), kernels],
            class: shape(CLASS).is_some(),
            registers: shape(REGISTERS).and_then(|shape| shape.get(1)).copied().unwrap_or(0),
            whole: tensors.keys().any(|name| name.starts_with("decoder.")),
        }
    }

    /// Rows of a table of `n` that may come before those of the patches, for no token, for the class token, for it and
    /// the registers (timm's, unless its `no_embed_class` is set).
    fn prefixes(&self) -> [usize; 3] {
        [0, 1, usize::from(self.class).saturating_add(self.registers)]
    }

    /// The grid of a table of `n` rows, and how many come before the patches'.
    fn read(&self, n: usize, model: Grid) -> Option<GridReading> {
        let holds = |grid: Grid| {
            let rest = n.checked_sub(cells(grid)?)?;
            self.prefixes().contains(&rest).then_some((grid, rest))
        };
        let found = |(grid, prefix), source| GridReading { grid, prefix, source };
        if let Some(stated) = self.stated.into_iter().flatten().find_map(holds) {
            return Some(found(stated, GridSource::Stated));
        }
        match holds(model) {
            // Whoever trained a whole network made the table for it; a square one of a square model is no guess at all.
            Some(same) if self.whole || same.0.0 == same.0.1 => Some(found(same, GridSource::Model)),
            Some((grid, prefix)) => Some(match square(n - prefix) {
                Some(square) => found((square, prefix), GridSource::Square),
                None => found((grid, prefix), GridSource::Model),
            }),
            None => {
                let mut prefixes = self.prefixes().into_iter();
                let square = prefixes.find_map(|prefix| Some((square(n.checked_sub(prefix)?)?, prefix)))?;
                Some(found(square, GridSource::Square))
            }
        }
    }
}

/// How a table is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GridReading {
    grid: Grid,
    /// Rows before those of the patches.
    prefix: usize,
    source: GridSource,
}

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GridSource {
    /// The file.
    Stated,
    /// Its cells are as many as the model's.
    Model,
    /// Its cells are a square number, as those of published backbones.
    Square,
}

/// Positions `[1, prefix + n, d]` for the model's grid. Rows for tokens that the model's table has none for are added
/// to the tokens themselves, which is what the network would do with them.
fn resize_position_table(
    tensors: &mut Tensors<'_>,
    file: &Table,
    shape: &[usize],
    to: Grid,
    model: &ShapesByName<'_>,
    report: &mut LoadReport,
) {
    let Some(tensor) = tensors.get(POSITIONS) else { return };
    let (&[1, n, d], &[1, m, width]) = (tensor.shape.as_slice(), shape) else { return };
    let Some(class) = cells(to).and_then(|cells| m.checked_sub(cells)).filter(|class| *class <= 1) else { return };
    let Some(GridReading { grid: from, prefix, source }) = file.read(n, to) else { return };
    if d != width {
        return;
    }
    let (square, assumed) = (to.0 == to.1, source == GridSource::Square);
    if source == GridSource::Model && !square {
        report.notes.push(format!(
            "the file does not state the grid of its {} positions: it is taken for the model's, {} rows of {}",
            from.0 * from.1,
            to.0,
            to.1
        ));
    }
    if (from, prefix) == (to, class) {
        return;
    }
    let (head, map) = tensor.data.split_at(prefix * d);
    let map = if from == to {
        map.to_vec()
    } else {
        report.resized.push(Resized { name: POSITIONS.to_owned(), from, to, assumed });
        let planes: Vec<f32> = (0..d).flat_map(|c| map.iter().skip(c).step_by(d).copied()).collect(); // [d, rows·columns]
        let planes = bicubic(&planes, d, from, to, false);
        (0..to.0 * to.1).flat_map(|at| planes.iter().skip(at).step_by(to.0 * to.1).copied()).collect()
    };
    let mut rows: Vec<&[f32]> = head.chunks_exact(d.max(1)).collect();
    let zeros = vec![0.0; d];
    // Of the rows before the patches the first is the class token's, if there is one.
    let kept = match class {
        0 => Vec::new(),
        _ if rows.is_empty() => zeros,
        _ => rows.remove(0).to_vec(),
    };
    let mut folds: Vec<(&str, Vec<f32>)> = Vec::new();
    // A first row is the class token's, whether the file has one or lost it.
    if class == 0 && !rows.is_empty() && (file.class || rows.len() > file.registers) {
        folds.push((CLASS, rows.remove(0).to_vec()));
    }
    if !rows.is_empty() {
        folds.push((REGISTERS, rows.concat()));
    }
    let data = [kept, map].concat();
    for (name, rows) in folds {
        match tensors.get_mut(name).filter(|token| token.data.len() == rows.len() && model.contains_key(name)) {
            Some(token) => {
                token.to_mut().data.iter_mut().zip(&rows).for_each(|(token, row)| *token += row);
                report
                    .notes
                    .push(format!("the position of {name} was added to it: the model's table has no row for it"));
            }
            None => {
                let whose = if name == CLASS { "the class token" } else { "register tokens" };
                let lacks = if model.contains_key(name) { "file" } else { "model" };
                let (count, s) = (rows.len() / d, if rows.len() > d { "s" } else { "" });
                report.notes.push(format!("left out {count} position{s} of {whose}, as the {lacks} has no {name}"));
            }
        }
    }
    tensors.insert(POSITIONS.to_owned(), Cow::Owned(HostTensor { shape: shape.to_vec(), data }));
}

/// A table, and the grids it was resized between.
type Fitted = (HostTensor, Grid, Grid);

/// Structure tokens `[1, k, h, w]` for another grid; corners are aligned where the table has an odd side, as in the
/// reference. None where nothing is to be done, or nothing can be.
fn resize_kernels(tensor: &HostTensor, shape: &[usize]) -> Option<Fitted> {
    let (&[1, k, h, w], &[1, classes, rows, columns]) = (tensor.shape.as_slice(), shape) else { return None };
    let (from, to) = ((h, w), (rows, columns));
    if k != classes || from == to || h * w * rows * columns == 0 {
        return None;
    }
    let data = bicubic(&tensor.data, k, from, to, h % 2 == 1 || w % 2 == 1);
    Some((HostTensor { shape: shape.to_vec(), data }, from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::key_format::KeyFormat;
    use crate::weights::state::WeightFormat;

    /// A file's tensors of width 1: the table counts its rows from 0, the tokens are 100 and 200.
    fn file(rows: usize, class: bool, registers: usize, kernels: Option<Grid>) -> Tensors<'static> {
        let tensor = |shape: Vec<usize>, data: Vec<f32>| Cow::Owned(HostTensor { shape, data });
        let mut tensors = Tensors::new();
        tensors.insert(POSITIONS.into(), tensor(vec![1, rows, 1], (0..rows).map(|i| i as f32).collect()));
        if class {
            tensors.insert(CLASS.into(), tensor(vec![1, 1, 1], vec![100.0]));
        }
        if registers > 0 {
            tensors.insert(REGISTERS.into(), tensor(vec![1, registers, 1], vec![200.0; registers]));
        }
        if let Some((h, w)) = kernels {
            tensors.insert(KERNELS.into(), tensor(vec![1, 2, h, w], vec![0.5; 2 * h * w]));
        }
        tensors
    }

    struct Fit {
        table: Vec<f32>,
        class: Option<f32>,
        registers: Vec<f32>,
        report: LoadReport,
    }

    /// Fits them to a model with a table of `rows` for `grid`.
    fn fitted(mut tensors: Tensors<'static>, metadata: Option<&str>, rows: usize, grid: Grid) -> Fit {
        let metadata = metadata.map(|text| (GRID_METADATA.to_owned(), text.to_owned())).into_iter().collect();
        let state = StateDict { metadata, ..StateDict::default() };
        let (one, many) = ([1, 1, 1], [1, 4, 1]);
        let kernels = [1, 2, grid.0, grid.1];
        let table = [1, rows, 1];
        let model: ShapesByName<'_> =
            [(POSITIONS, &table[..]), (CLASS, &one[..]), (REGISTERS, &many[..]), (KERNELS, &kernels[..])].into();
        let mut report = LoadReport::new(&state, KeyFormat::Timm);
        fit_tables(&mut tensors, &state, &model, Some(grid), &mut report);
        let data = |name: &str| tensors.get(name).map(|tensor| tensor.data.clone()).unwrap_or_default();
        assert_eq!(report.format, WeightFormat::Memory);
        Fit { table: data(POSITIONS), class: data(CLASS).first().copied(), registers: data(REGISTERS), report }
    }

    fn counted(rows: usize) -> Vec<f32> {
        (0..rows).map(|i| i as f32).collect()
    }

    #[test]
    fn a_stated_grid_is_believed_and_an_equal_one_never_touched() {
        for (rows, columns) in (1..=40).flat_map(|rows| (1..=40).map(move |columns| (rows, columns))) {
            let (n, text) = (rows * columns, format!("{rows}x{columns}"));
            for class in [0, 1] {
                let own = fitted(file(n + class, class == 1, 0, None), Some(&text), n + class, (rows, columns));
                let kernels = Some((rows, columns));
                let published = fitted(file(n + class, class == 1, 0, kernels), None, n + class, (rows, columns));
                for fit in [own, published] {
                    assert_eq!(fit.table, counted(n + class), "{text}");
                    assert!(fit.report.resized.is_empty() && fit.report.notes.is_empty(), "{text}: {}", fit.report);
                }
            }
        }
    }

    #[test]
    fn a_whole_network_that_says_nothing_is_of_the_models_grid() {
        for (rows, columns) in [(6, 8), (8, 2), (16, 64), (25, 36), (3, 3), (2, 7)] {
            let n = rows * columns;
            let mut tensors = file(n + 1, true, 0, None);
            tensors.insert(
                "decoder.head.conv_seg.bias".into(),
                Cow::Owned(HostTensor { shape: vec![1], data: vec![0.0] }),
            );
            let fit = fitted(tensors, None, n + 1, (rows, columns));
            assert_eq!(fit.table, counted(n + 1));
            assert!(fit.report.resized.is_empty());
            assert_eq!(fit.report.notes.len(), usize::from(rows != columns), "{}", fit.report);
        }
    }

    #[test]
    fn a_backbone_that_says_nothing_is_square_and_that_is_said() {
        let fit = fitted(file(17, true, 0, None), None, 17, (2, 8));
        assert_eq!(fit.report.resized, [Resized { name: POSITIONS.into(), from: (4, 4), to: (2, 8), assumed: true }]);
        assert!(fit.report.to_string().contains("from 4x4 to 2x8 (the file does not say its grid"), "{}", fit.report);
        assert_eq!((fit.table.len(), fit.table[0]), (17, 0.0));
        // Eight are not square: as they are, and said.
        let fit = fitted(file(9, true, 0, None), None, 9, (2, 4));
        assert_eq!(fit.table, counted(9));
        assert!(fit.report.to_string().contains("taken for the model's, 2 rows of 4"), "{}", fit.report);
        // Of another size, and no square: nothing can be done.
        assert_eq!(fitted(file(8, true, 0, None), None, 17, (4, 4)).table, counted(8));
        assert!(fitted(file(10, true, 0, None), None, 17, (4, 4)).report.resized[0].assumed);
        assert!(!fitted(file(10, true, 0, None), Some("3x3"), 17, (4, 4)).report.resized[0].assumed);
    }

    #[test]
    fn grids_of_as_many_cells_are_told_apart() {
        let turned = fitted(file(9, true, 0, None), Some("2x4"), 9, (4, 2));
        assert_eq!((turned.report.resized[0].from, turned.report.resized[0].to), ((2, 4), (4, 2)));
        // The structure tokens say it too.
        let turned = fitted(file(9, true, 0, Some((2, 4))), None, 9, (4, 2));
        assert_eq!(turned.report.resized.len(), 2, "the tokens are resized too");
        assert!(turned.report.to_string().contains("resized backbone.pos_embed from 2x4 to 4x2"), "{}", turned.report);
        // What cannot be is not believed.
        for grid in ["0x0", "2x3", "18446744073709551615x2", "x", "9x0"] {
            let fit = fitted(file(9, true, 0, Some((2, 4))), Some(grid), 9, (2, 4));
            assert!(fit.report.resized.is_empty() && fit.table == counted(9), "{grid}");
        }
    }

    #[test]
    fn rows_of_tokens_go_where_the_model_has_a_place() {
        // The model's table has no row for the class token: it is added to the token, as the network does.
        let fit = fitted(file(5, true, 0, None), Some("2x2"), 4, (2, 2));
        assert_eq!((fit.table, fit.class), (vec![1.0, 2.0, 3.0, 4.0], Some(100.0)));
        let mut tensors = file(5, true, 0, None);
        tensors.get_mut(POSITIONS).unwrap().to_mut().data[0] = 7.0;
        let fit = fitted(tensors, None, 4, (2, 2));
        assert_eq!((fit.table, fit.class), (vec![1.0, 2.0, 3.0, 4.0], Some(107.0)));
        assert!(
            fit.report.to_string().contains("the position of backbone.cls_token was added to it"),
            "{}",
            fit.report
        );
        // A file that lost its token: said of that, not of registers.
        let fit = fitted(file(5, false, 0, None), None, 4, (2, 2));
        assert_eq!(fit.table, [1.0, 2.0, 3.0, 4.0]);
        let said = fit.report.to_string();
        assert!(
            said.contains("left out 1 position of the class token, as the file has no backbone.cls_token"),
            "{said}"
        );
        // The file's has none (timm's no_embed_class): zero changes nothing.
        let fit = fitted(file(4, true, 4, None), None, 5, (2, 2));
        assert_eq!((fit.table, fit.class), (vec![0.0, 0.0, 1.0, 2.0, 3.0], Some(100.0)));
        // timm's registers may have rows too.
        let fit = fitted(file(9, true, 4, None), None, 5, (2, 2));
        assert_eq!((fit.table, fit.class), (vec![0.0, 5.0, 6.0, 7.0, 8.0], Some(100.0)));
        assert_eq!(fit.registers, [201.0, 202.0, 203.0, 204.0]);
    }

    #[test]
    fn an_empty_table_is_left_alone() {
        assert_eq!(fitted(file(0, true, 0, None), None, 5, (2, 2)).table, [] as [f32; 0]);
        assert_eq!(fitted(file(5, true, 0, None), None, 5, (0, 0)).table, counted(5));
        assert_eq!(fitted(file(5, true, 0, None), None, 5, (usize::MAX, 2)).table, counted(5));
    }
}
