//! The linear assignment problem, by shortest augmenting paths (Crouse 2016), step for step as scipy's
//! `linear_sum_assignment`: where several assignments are best, both choose the same one.

/// The pairs (row, column) of the smallest total cost, each row and each column in at most one: `min(rows, cols)`
/// pairs, rows ascending.
///
/// `cost` is `[rows, cols]`. As in Hugging Face's matchers, what is not a number counts as 0, and all else is kept
/// within ±1e10.
pub fn assign(cost: &[f64], rows: usize, cols: usize) -> Vec<(usize, usize)> {
    assert_eq!(cost.len(), rows * cols, "assign: the cost is not one of {rows} rows and {cols} columns");
    let at = |row: usize, col: usize| {
        let cost = cost[row * cols + col];
        if cost.is_nan() { 0.0 } else { cost.clamp(-LARGEST, LARGEST) }
    };
    if rows <= cols {
        columns_of_rows(at, rows, cols).into_iter().enumerate().collect()
    } else {
        let rows_of_cols = columns_of_rows(|col, row| at(row, col), cols, rows);
        let mut pairs: Vec<_> = rows_of_cols.into_iter().enumerate().map(|(col, row)| (row, col)).collect();
        pairs.sort_unstable();
        pairs
    }
}

const LARGEST: f64 = 1e10;

/// The column of each row; no more rows than columns, and finite costs.
fn columns_of_rows(cost: impl Fn(usize, usize) -> f64, rows: usize, cols: usize) -> Vec<usize> {
    let mut row_price = vec![0.0; rows];
    let mut col_price = vec![0.0; cols];
    let mut col_of = vec![0; rows];
    let mut row_of: Vec<Option<usize>> = vec![None; cols];
    for start in 0..rows {
        // Dijkstra from `start` over reduced costs, until a column is free.
        let mut distance = vec![f64::INFINITY; cols];
        let mut before = vec![start; cols]; // the row from which a column is reached
        let mut open: Vec<usize> = (0..cols).rev().collect();
        let mut closed = Vec::new();
        let (mut row, mut walked) = (start, 0.0);
        let free = loop {
            let (mut nearest, mut least) = (0, f64::INFINITY);
            for (i, &col) in open.iter().enumerate() {
                let reached = walked + cost(row, col) - row_price[row] - col_price[col];
                if reached < distance[col] {
                    distance[col] = reached;
                    before[col] = row;
                }
                if distance[col] < least || distance[col] == least && row_of[col].is_none() {
                    (nearest, least) = (i, distance[col]);
                }
            }
            walked = least;
            let col = open.swap_remove(nearest);
            closed.push(col);
            match row_of[col] {
                Some(next) => row = next,
                None => break col,
            }
        };
        row_price[start] += walked;
        for &col in &closed {
            col_price[col] -= walked - distance[col];
            if let Some(row) = row_of[col] {
                row_price[row] += walked - distance[col];
            }
        }
        // Along the path every row moves to the column that it was left by.
        let mut col = free;
        loop {
            let row = before[col];
            row_of[col] = Some(row);
            std::mem::swap(&mut col_of[row], &mut col);
            if row == start {
                break;
            }
        }
    }
    col_of
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn total(cost: &[f64], cols: usize, pairs: &[(usize, usize)]) -> f64 {
        pairs.iter().map(|(row, col)| cost[row * cols + col]).sum()
    }

    /// The least cost over all ways to give each row from `row` on a column that is not `taken`.
    fn brute_force(cost: &[f64], rows: usize, cols: usize, row: usize, taken: u32) -> f64 {
        if row == rows {
            return if taken.count_ones() as usize == rows.min(cols) { 0.0 } else { f64::INFINITY };
        }
        let skipped = if rows > cols { brute_force(cost, rows, cols, row + 1, taken) } else { f64::INFINITY };
        let free = (0..cols).filter(|col| taken >> col & 1 == 0);
        free.map(|col| cost[row * cols + col] + brute_force(cost, rows, cols, row + 1, taken | 1 << col))
            .fold(skipped, f64::min)
    }

    fn assert_valid(pairs: &[(usize, usize)], rows: usize, cols: usize) {
        assert_eq!(pairs.len(), rows.min(cols));
        assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(pairs.iter().all(|(row, col)| *row < rows && *col < cols));
        let mut taken: Vec<usize> = pairs.iter().map(|(_, col)| *col).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), pairs.len());
    }

    #[test]
    fn as_cheap_as_the_best_of_all() {
        let mut rng = Rng::new(1, &[]);
        for round in 0..300 {
            let (rows, cols) = (rng.below(7), rng.below(7));
            let draw = |_| match round % 3 {
                0 => f64::from(rng.normal()),
                1 => rng.below(3) as f64, // ties
                _ => f64::from(rng.range(-1e6, 1e6)),
            };
            let cost: Vec<f64> = (0..rows * cols).map(draw).collect();
            let pairs = assign(&cost, rows, cols);
            assert_valid(&pairs, rows, cols);
            let best = brute_force(&cost, rows, cols, 0, 0);
            assert!((total(&cost, cols, &pairs) - best).abs() < 1e-9 * (1.0 + best.abs()), "{rows}x{cols}: {cost:?}");
        }
    }

    #[test]
    fn what_is_no_finite_number_neither_hangs_nor_wins() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, -1.0, f64::MAX];
        let mut rng = Rng::new(2, &[]);
        for _ in 0..100 {
            let (rows, cols) = (rng.below(6), rng.below(6));
            let cost: Vec<f64> = (0..rows * cols).map(|_| odd[rng.below(odd.len())]).collect();
            assert_valid(&assign(&cost, rows, cols), rows, cols);
        }
        assert_eq!(assign(&[f64::NAN, -1.0, f64::INFINITY, f64::NAN], 2, 2), [(0, 0), (1, 1)]);
        assert_eq!(assign(&[f64::NAN, -1.0, 0.5, f64::NAN], 2, 2), [(0, 1), (1, 0)]);
    }

    #[test]
    fn nothing_to_assign() {
        assert_eq!(assign(&[], 0, 5), []);
        assert_eq!(assign(&[], 5, 0), []);
    }
}
