//! Scores in bands of the distance to the nearest true edge: IoU and accuracy of the pixels of each band. Near edges
//! errors are expected, far from them they are faults.
//!
//! A pixel of the truth lies *on an edge* if one of its four neighbours has another class; the edge of the image and
//! pixels without truth (255) make none. The distance of a pixel is the Euclidean one to the nearest pixel on an edge,
//! which is 0 there, so that an edge is two pixels wide. It is exact, and takes time linear in the pixels whatever the
//! classes: first along the columns, then along the rows as the lower envelope of parabolas (Meijster, Roerdink,
//! Hesselink 2000, "A general algorithm for computing distance transforms in linear time"; the same idea as
//! Felzenszwalb and Huttenlocher 2012).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{IGNORE, Labels};
use crate::metrics::overlap::Overlaps;

/// Where bands begin, in pixels: on the edge, then from 1, 3, 7 and 15 on. The last has no end.
pub(crate) const BANDS: [u32; 5] = [0, 1, 3, 7, 15];

/// The squared distance of every pixel to the nearest pixel on an edge, row by row; `u64::MAX` where there is none.
pub(crate) fn squared_distances(truth: &Labels) -> Vec<u64> {
    let (width, height) = (truth.width, truth.height);
    let along = along_columns(truth);
    let mut squared = vec![0; width * height];
    let rows = squared.par_chunks_mut(width.max(1)).zip(along.par_chunks(width.max(1)));
    rows.for_each_init(Vec::new, |parabolas, (row, along)| along_row(along, row, parabolas, far(truth)));
    squared
}

/// What stands for no edge in a column: further than any.
fn far(truth: &Labels) -> u32 {
    (truth.width + truth.height) as u32
}

/// How far up or down the nearest pixel on an edge is in the same column.
fn along_columns(truth: &Labels) -> Vec<u32> {
    let (width, height, far) = (truth.width, truth.height, far(truth));
    let mut distances = vec![far; width * height];
    let ids = &truth.ids;
    let differ = |a: u8, b: u8| a != b && a != IGNORE && b != IGNORE;
    for at in 0..ids.len() {
        if at % width + 1 < width && differ(ids[at], ids[at + 1]) {
            (distances[at], distances[at + 1]) = (0, 0);
        }
        if at + width < ids.len() && differ(ids[at], ids[at + width]) {
            (distances[at], distances[at + width]) = (0, 0);
        }
    }
    let nearer = |here: &mut u32, there: u32| *here = (*here).min((there + 1).min(far));
    for at in width..ids.len() {
        let above = distances[at - width];
        nearer(&mut distances[at], above);
    }
    for at in (0..ids.len().saturating_sub(width)).rev() {
        let below = distances[at + width];
        nearer(&mut distances[at], below);
    }
    distances
}

/// The least over x' of (x - x')² + along[x']², for every x of a row. `parabolas` is scratch: the x' that reach the
/// lower envelope, each with the first x at which it does.
fn along_row(along: &[u32], row: &mut [u64], parabolas: &mut Vec<(usize, usize)>, far: u32) {
    let height = |x: usize| i64::from(along[x]).pow(2);
    let value = |at: usize, x: usize| (at as i64 - x as i64).pow(2) + height(x);
    parabolas.clear();
    for x in 0..along.len() {
        while parabolas.last().is_some_and(|(last, from)| value(*from, *last) > value(*from, x)) {
            parabolas.pop();
        }
        match parabolas.last() {
            None => parabolas.push((x, 0)),
            Some((last, _)) => {
                // Up to here the last one is the lower.
                let (p, q) = (*last as i64, x as i64);
                let until = (q * q - p * p + height(x) - height(*last)).div_euclid(2 * (q - p));
                if until + 1 < along.len() as i64 {
                    parabolas.push((x, (until + 1) as usize));
                }
            }
        }
    }
    for at in (0..along.len()).rev() {
        while parabolas.last().is_some_and(|(_, from)| *from > at) {
            parabolas.pop();
        }
        let Some((nearest, _)) = parabolas.last() else { unreachable!("the first parabola begins at 0") };
        row[at] = if along[*nearest] == far { u64::MAX } else { value(at, *nearest) as u64 };
    }
}

/// What truth and prediction share in each band of distances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DistanceBands([Overlaps; BANDS.len()]);

/// The score of one band.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BandScore {
    /// Pixels from the nearest edge, the first that belongs to the band.
    pub from: u32,
    /// The first that does not; none for the last band, which also holds images without an edge.
    pub to: Option<u32>,
    /// Counted pixels.
    pub pixels: u64,
    /// Their share of all counted pixels.
    pub share: f64,
    /// Mean IoU over the classes in the band.
    pub miou: Option<f64>,
    /// Share of right pixels.
    pub accuracy: Option<f64>,
    /// IoU of each class.
    pub classes: Vec<Option<f64>>,
}

impl DistanceBands {
    /// Nothing counted.
    pub fn new(classes: usize) -> Self {
        Self(std::array::from_fn(|_| Overlaps::new(classes)))
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.0[0].classes()
    }

    /// Fails where the bands called `field` are not the pixels of `whole`, each once: a file may hold anything.
    pub(crate) fn check(&self, field: &str, whole: &Overlaps) -> Result<()> {
        let mut sum = Overlaps::new(whole.classes());
        for (at, band) in self.0.iter().enumerate() {
            let field = format!("{field}[{at}]");
            band.check(&field, whole)?;
            sum.merge(band)?;
            let all = |of: usize| (0..band.classes()).map(|class| u128::from(band.of_class(class)[of])).sum::<u128>();
            if all(1) != all(2) {
                let (truth, prediction) = (all(1), all(2));
                return Err(Error::new(format!("`{field}` holds {truth} true pixels and {prediction} predicted ones")));
            }
        }
        match (0..whole.classes()).find(|class| sum.of_class(*class) != whole.of_class(*class)) {
            Some(class) => Err(Error::new(format!(
                "`{field}`: class {class} adds up to {:?} pixels, and in the confusion matrix to {:?}",
                sum.of_class(class),
                whole.of_class(class)
            ))),
            None => Ok(()),
        }
    }

    /// Counts one image. The maps must be of one size and hold classes, the truth also 255.
    pub fn add(&mut self, truth: &Labels, prediction: &Labels) {
        let squared = squared_distances(truth);
        for (at, squared) in squared.iter().enumerate().filter(|(at, _)| truth.ids[*at] != IGNORE) {
            let inside = |from: &u32| u64::from(*from).pow(2) <= *squared;
            let band = BANDS.iter().rposition(inside).unwrap_or(0);
            self.0[band].count(truth.ids[at], prediction.ids[at]);
        }
    }

    /// Adds other counts of the same classes.
    ///
    /// # Errors
    /// Sums that are too large.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.0.iter_mut().zip(&other.0).try_for_each(|(band, more)| band.merge(more))
    }

    /// The scores, from the edge outwards.
    pub fn scores(&self) -> Vec<BandScore> {
        let all: u64 = self.0.iter().map(Overlaps::pixels).fold(0, u64::saturating_add);
        let score = |(i, band): (usize, &Overlaps)| BandScore {
            from: BANDS[i],
            to: BANDS.get(i + 1).copied(),
            pixels: band.pixels(),
            share: band.pixels() as f64 / all.max(1) as f64,
            miou: band.miou(),
            accuracy: band.accuracy(),
            classes: band.ious(),
        };
        self.0.iter().enumerate().map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn random(rng: &mut Rng, width: usize, height: usize, ignored: f32) -> Labels {
        let block = 1 + rng.below(9);
        let draw = |rng: &mut Rng| if rng.uniform() < ignored { IGNORE } else { rng.below(3) as u8 };
        let blocks: Vec<u8> = (0..400).map(|_| draw(rng)).collect();
        let ids = (0..width * height).map(|at| blocks[(at / width / block * 17 + at % width / block) % 400]).collect();
        Labels { width, height, ids }
    }

    /// Every pixel against every pixel on an edge, by the definition.
    fn by_hand(truth: &Labels) -> Vec<u64> {
        let (w, h) = (truth.width as i64, truth.height as i64);
        let id = |x: i64, y: i64| {
            ((0..w).contains(&x) && (0..h).contains(&y))
                .then(|| truth.ids[(y * w + x) as usize])
                .filter(|id| *id != IGNORE)
        };
        let on_edge = |x: i64, y: i64| {
            let near = [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)];
            id(x, y).is_some_and(|own| near.iter().any(|(x, y)| id(*x, *y).is_some_and(|other| other != own)))
        };
        let places = || (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
        let edges: Vec<_> = places().filter(|(x, y)| on_edge(*x, *y)).collect();
        let nearest = |(x, y): (i64, i64)| edges.iter().map(|(a, b)| ((x - a).pow(2) + (y - b).pow(2)) as u64).min();
        places().map(|place| nearest(place).unwrap_or(u64::MAX)).collect()
    }

    #[test]
    fn distances_are_exact() {
        let mut rng = Rng::new(3, &[]);
        for round in 0..80 {
            let (width, height) = (1 + rng.below(40), 1 + rng.below(30));
            let truth = random(&mut rng, width, height, if round % 2 == 0 { 0.0 } else { 0.4 });
            assert_eq!(squared_distances(&truth), by_hand(&truth), "{width} x {height}");
        }
        let flat = Labels { width: 5, height: 3, ids: vec![2; 15] };
        assert_eq!(squared_distances(&flat), [u64::MAX; 15]);
        assert!(squared_distances(&Labels { width: 0, height: 0, ids: vec![] }).is_empty());
    }

    #[test]
    fn a_straight_edge_by_hand() {
        // Left half 0, right half 1; the prediction puts the edge two pixels too far right.
        let row = |edge: usize| (0..40).map(|x| u8::from(x >= edge)).collect::<Vec<u8>>();
        let map = |edge: usize| Labels { width: 40, height: 10, ids: row(edge).repeat(10) };
        let mut bands = DistanceBands::new(2);
        bands.add(&map(20), &map(22));
        let scores = bands.scores();
        // On the edge: columns 19, 20. Then 17, 18 | 21, 22, ... out to 4 and 35, and beyond.
        assert_eq!(scores.iter().map(|band| band.pixels).collect::<Vec<_>>(), [20, 40, 80, 160, 100]);
        assert_eq!(scores.iter().map(|band| band.accuracy.unwrap()).collect::<Vec<_>>(), [0.5, 0.75, 1.0, 1.0, 1.0]);
        assert_eq!(scores[0].miou, Some(0.25), "class 0 has IoU 1/2, class 1 none");
        assert_eq!(scores[1].classes, [Some(2.0 / 3.0), Some(0.5)]);
        assert_eq!((scores[4].from, scores[4].to, scores[4].miou), (15, None, Some(1.0)));
        assert!((scores.iter().map(|band| band.share).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn bands_add_up_to_the_whole() {
        let mut rng = Rng::new(4, &[]);
        let (mut bands, mut whole) = (DistanceBands::new(3), Overlaps::new(3));
        for _ in 0..5 {
            let truth = random(&mut rng, 50, 40, 0.2);
            let prediction = random(&mut rng, 50, 40, 0.0);
            bands.add(&truth, &prediction);
            let counted = truth.ids.iter().zip(&prediction.ids).filter(|(truth, _)| **truth != IGNORE);
            counted.for_each(|(truth, prediction)| whole.count(*truth, *prediction));
        }
        let mut sum = Overlaps::new(3);
        bands.0.iter().for_each(|band| sum.merge(band).unwrap());
        assert_eq!(sum, whole);
        let none = DistanceBands::new(3).scores();
        assert!(none.iter().all(|band| band.miou.is_none() && band.share == 0.0));
    }
}
