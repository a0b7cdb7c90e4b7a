//! Polygons of all regions.

use crate::image::Labels;
use crate::image::outlines::borders::{Borders, Ring};
use crate::image::outlines::simplify::{Kept, simplify};
use crate::image::outlines::{OutlineOptions, Polygon, without_small};

/// The outlines of all regions, by their class, and within a class by their first pixel in reading order.
///
/// Without simplification (a tolerance below 0.5) drawing them, a pixel for each centre inside, gives the labels back.
#[must_use]
pub fn polygons(labels: &Labels, options: OutlineOptions) -> Vec<Polygon> {
    let borders = Borders::of(&without_small(labels, options.min_area), &[]);
    let kept = simplify(&borders, options.tolerance);
    assemble(&borders, &kept).into_iter().map(|(_, polygon)| polygon).collect()
}

/// The polygons of the regions, with their numbers.
fn assemble(borders: &Borders, kept: &Kept) -> Vec<(u32, Polygon)> {
    let mut rings = borders.rings();
    let class = |ring: &Ring| borders.regions.classes[ring.region as usize];
    // The outer ring of each region is the only one with a positive area.
    rings.sort_by_key(|ring| (class(ring), ring.region, ring.area < 0));
    let polygon = |rings: &[Ring]| {
        let mut corners = rings.iter().map(|ring| kept.ring(borders, &ring.halves));
        let polygon = Polygon {
            class: class(&rings[0]) as u8,
            area: rings.iter().map(|ring| ring.area).sum::<i64>().unsigned_abs(),
            exterior: corners.next().unwrap_or_default(),
            holes: corners.collect(),
        };
        (rings[0].region, polygon)
    };
    rings.chunk_by(|a, b| a.region == b.region).map(polygon).collect()
}

/// Regions as polygons without holes, as COCO has them, in the order of [`polygons`].
pub(super) struct Pieces {
    pub(super) class: u8,
    /// Pixels.
    pub(super) area: u64,
    pub(super) rings: Vec<Vec<[u32; 2]>>,
}

/// Cuts regions with holes into pieces without. Pieces of one region share the points of the cuts.
///
/// Below its last row each hole is cut off: the runs to its left and right there are parted from what lies below them.
/// A closed way around holes would have to cross below the last of these rows, on both sides of the holes that end
/// there, where it cannot. So no piece has a hole; and as each side alone already bars the way, what lies on both sides
/// of a cut is never one piece.
pub(super) fn pieces(labels: &Labels, options: OutlineOptions) -> Vec<Pieces> {
    let labels = without_small(labels, options.min_area);
    let mut borders = Borders::of(&labels, &[]);
    let cuts = cuts(&labels, &borders);
    if !cuts.is_empty() {
        borders = Borders::of(&labels, &cuts);
    }
    let kept = simplify(&borders, options.tolerance);
    let mut parts: Vec<(u8, u32, Polygon)> = assemble(&borders, &kept)
        .into_iter()
        .map(|(region, polygon)| (polygon.class, borders.regions.whole(region), polygon))
        .collect();
    parts.sort_by_key(|(class, whole, _)| (*class, *whole));
    let regions = parts.chunk_by_mut(|a, b| a.1 == b.1).map(|parts| Pieces {
        class: parts[0].0,
        area: parts.iter().map(|(.., polygon)| polygon.area).sum(),
        rings: parts.iter_mut().map(|(.., polygon)| std::mem::take(&mut polygon.exterior)).collect(),
    });
    regions.collect()
}

/// The runs beside the last row of each hole, by row and column.
fn cuts(labels: &Labels, borders: &Borders) -> Vec<(usize, u32)> {
    let mut cuts = Vec::new();
    for ring in borders.rings().iter().filter(|ring| ring.area < 0) {
        let Some(last) = borders.uprights(ring).map(|(_, rows)| rows.end).max() else { continue };
        let beside = || borders.uprights(ring).filter(|(_, rows)| rows.end == last).map(|(column, _)| column as usize);
        let (Some(first), Some(behind)) = (beside().min(), beside().max()) else { continue };
        let row = &labels.ids[(last as usize - 1) * labels.width..][..labels.width];
        let same = row[..first].iter().rev().take_while(|id| **id == row[first - 1]).count();
        // Columns of runs are counted from 1.
        cuts.extend([first - same, behind].map(|start| (last as usize - 1, start as u32 + 1)));
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}
