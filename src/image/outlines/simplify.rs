//! Borders with fewer corners, by Douglas and Peucker, with no crossing that was not there.
//!
//! A chord takes the place of a chain of vertices if these lie within the tolerance of it, and if no other vertex lies
//! in the chain's convex hull (Saalfeld, "Topologically consistent line simplification", 1999). Two such chords cannot
//! cross: one that did would end in the other's hull, or its chain would cross the other's chain. For the same reason
//! nothing changes sides. Each border is simplified once, for both regions that it parts.

use std::collections::HashSet;

use crate::image::outlines::borders::{Arc, Borders};

/// Chains are cut at this many vertices, so that time is bounded by a multiple of all of them.
const LONGEST: usize = 1024;

/// The vertices of each arc that are kept, with both ends.
pub(super) struct Kept {
    vertices: Vec<u32>,
    /// Where those of each arc begin, and their number.
    starts: Vec<usize>,
}

impl Kept {
    /// The corners of half-arcs that follow each other to a ring.
    pub(super) fn ring(&self, borders: &Borders, halves: &[u32]) -> Vec<[u32; 2]> {
        let mut ring = Vec::new();
        for half in halves {
            let arc = *half as usize / 2;
            let vertices = &self.vertices[self.starts[arc]..self.starts[arc + 1]];
            let at = |vertex: &u32| borders.vertices[*vertex as usize].at();
            // The end is the next one's start.
            let count = vertices.len() - 1;
            match half % 2 {
                0 => ring.extend(vertices.iter().take(count).map(at)),
                _ => ring.extend(vertices.iter().rev().take(count).map(at)),
            }
        }
        ring
    }
}

/// Simplifies all arcs by a tolerance in pixels.
pub(super) fn simplify(borders: &Borders, tolerance: f64) -> Kept {
    let mut kept = Kept { vertices: Vec::new(), starts: vec![0] };
    // Not larger than 0, as of what is not a number: all of them.
    let tolerance = tolerance.max(0.0);
    let mut chains = Chains { borders, squared: tolerance * tolerance, splits: Vec::new(), hull: Vec::new() };
    // A border that becomes a single chord, of several between two nodes: the others may not, or they would be one.
    let mut chords = HashSet::new();
    if tolerance > 0.0 {
        for Arc { from, to, .. } in borders.arcs.iter().filter(|arc| arc.to - arc.from == 1) {
            chords.insert(ends(borders, *from, *to));
        }
    }
    for Arc { from, to, .. } in &borders.arcs {
        let (from, to) = (*from, *to);
        if tolerance == 0.0 || to - from == 1 {
            kept.vertices.extend(&borders.path[from..=to]);
        } else {
            chains.splits.clear();
            let mut start = from;
            while start < to {
                let end = if to - start > LONGEST + LONGEST / 2 { start + LONGEST } else { to };
                chains.splits.push(end);
                chains.split(start, end);
                start = end;
            }
            if chains.splits.len() == 1 && !chords.insert(ends(borders, from, to)) {
                let far = chains.farthest(from, to).place;
                chains.splits.push(far);
                chains.split(from, far);
                chains.split(far, to);
            }
            chains.splits.push(from);
            chains.splits.sort_unstable();
            kept.vertices.extend(chains.splits.iter().map(|place| borders.path[*place]));
        }
        kept.starts.push(kept.vertices.len());
    }
    kept
}

/// Both nodes of an arc, in either order.
fn ends(borders: &Borders, from: usize, to: usize) -> [u32; 2] {
    let [a, b] = [borders.path[from], borders.path[to]];
    [a.min(b), a.max(b)]
}

struct Chains<'a> {
    borders: &'a Borders,
    squared: f64,
    /// Places in the path that are kept.
    splits: Vec<usize>,
    hull: Vec<[i64; 2]>,
}

/// Of a chain the vertex that is farthest from its chord.
struct Farthest {
    place: usize,
    /// The square of its distance.
    squared: f64,
    /// How far vertices are to the left and right of the chord's line, in units of its length.
    sides: [i64; 2],
}

impl Chains<'_> {
    fn at(&self, place: usize) -> [i64; 2] {
        self.borders.vertices[self.borders.path[place] as usize].at().map(i64::from)
    }

    /// Finds what must be kept between two places.
    fn split(&mut self, from: usize, to: usize) {
        let mut open = vec![(from, to)];
        while let Some((from, to)) = open.pop() {
            if to - from < 2 {
                continue;
            }
            let far = self.farthest(from, to);
            if far.squared > self.squared || self.is_in_the_way(from, to, far.sides) {
                self.splits.push(far.place);
                open.extend([(from, far.place), (far.place, to)]);
            }
        }
    }

    fn farthest(&self, from: usize, to: usize) -> Farthest {
        let [a, b] = [from, to].map(|place| self.at(place));
        let along = [b[0] - a[0], b[1] - a[1]];
        let length = square(along);
        let mut far = Farthest { place: from + 1, squared: -1.0, sides: [0, 0] };
        for place in from + 1..to {
            let p = self.at(place);
            let side = cross(a, b, p);
            far.sides = [far.sides[0].min(side), far.sides[1].max(side)];
            let off = [p[0] - a[0], p[1] - a[1]];
            let ahead = along[0] * off[0] + along[1] * off[1];
            let squared = match ahead {
                ..0 => square(off),
                _ if ahead as f64 > length => square([p[0] - b[0], p[1] - b[1]]),
                _ => side as f64 * (side as f64 / length),
            };
            if squared > far.squared {
                (far.place, far.squared) = (place, squared);
            }
        }
        far
    }

    /// Whether a vertex that is not of the chain lies in its convex hull, or on it.
    fn is_in_the_way(&mut self, from: usize, to: usize, sides: [i64; 2]) -> bool {
        let borders = self.borders;
        let (mut low, mut high) = ([i64::MAX; 2], [i64::MIN; 2]);
        for p in (from..=to).map(|place| self.at(place)) {
            (low, high) = ([low[0].min(p[0]), low[1].min(p[1])], [high[0].max(p[0]), high[1].max(p[1])]);
        }
        // From the upper end to the lower.
        let ([mut a, mut b], mut sides) = ([self.at(from), self.at(to)], sides);
        if a[1] > b[1] {
            (a, b) = (b, a);
            // Seen from the other end, left is right.
            sides = [-sides[1], -sides[0]];
        }
        let along = [b[0] - a[0], b[1] - a[1]];
        let own = [borders.path[from], borders.path[to]];
        self.hull.clear();
        for y in low[1]..=high[1] {
            let (mut left, mut right) = (low[0], high[0]);
            if along[1] > 0 {
                // Where the row is as near to the chord's line as the vertices are.
                let middle = along[0] * (y - a[1]);
                left = left.max(a[0] + (middle - sides[1]).div_euclid(along[1]));
                right = right.min(a[0] + (middle - sides[0]).div_euclid(along[1]));
            }
            let row = borders.rows[y as usize] as usize..borders.rows[y as usize + 1] as usize;
            let first = row.start + borders.vertices[row.clone()].partition_point(|vertex| i64::from(vertex.x) < left);
            for (vertex, found) in (first..row.end).zip(&borders.vertices[first..row.end]) {
                if i64::from(found.x) > right {
                    break;
                }
                let place = borders.place[vertex] as usize;
                if (from + 1..to).contains(&place) || own.contains(&(vertex as u32)) {
                    continue;
                }
                if self.hull.is_empty() {
                    self.hull = convex_hull((from..=to).map(|place| self.at(place)).collect());
                }
                if is_within(&self.hull, found.at().map(i64::from)) {
                    return true;
                }
            }
        }
        false
    }
}

/// Twice the area of a triangle.
fn cross(a: [i64; 2], b: [i64; 2], p: [i64; 2]) -> i64 {
    (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
}

fn square(a: [i64; 2]) -> f64 {
    (a[0] * a[0] + a[1] * a[1]) as f64
}

/// The corners of the convex hull, each to the right of the ones before as seen on the screen, where y grows downwards.
fn convex_hull(mut points: Vec<[i64; 2]>) -> Vec<[i64; 2]> {
    points.sort_unstable();
    let mut hull: Vec<[i64; 2]> = Vec::new();
    let mut half = |points: &mut dyn Iterator<Item = &[i64; 2]>| {
        let least = hull.len() + 2;
        for point in points {
            while hull.len() >= least && cross(hull[hull.len() - 2], hull[hull.len() - 1], *point) <= 0 {
                hull.pop();
            }
            hull.push(*point);
        }
        // The other half begins with it.
        hull.pop();
    };
    half(&mut points.iter());
    half(&mut points.iter().rev());
    hull
}

/// Whether a point lies in a convex ring, or on it.
fn is_within(hull: &[[i64; 2]], point: [i64; 2]) -> bool {
    (0..hull.len()).all(|at| cross(hull[at], hull[(at + 1) % hull.len()], point) >= 0)
}
