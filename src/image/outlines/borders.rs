//! The borders between regions, along the sides of pixels: vertices where they turn or meet, and arcs between these.

use crate::image::Labels;
use crate::image::regions::{Cuts, Regions, Run, sweep};

/// No vertex, no arc.
const NONE: u32 = u32::MAX;

// Ways along the sides of pixels, clockwise as seen on the screen.
const EAST: usize = 0;
const SOUTH: usize = 1;
const WEST: usize = 2;
const NORTH: usize = 3;

/// A corner of pixels at which a border turns, or several meet.
#[derive(Debug)]
pub(super) struct Vertex {
    pub(super) x: u32,
    pub(super) y: u32,
    /// The next vertex each way, where a border leads there.
    next: [u32; 4],
    /// The regions around it, each to the right of the way of its position.
    right: [u32; 4],
}

impl Vertex {
    pub(super) fn at(&self) -> [u32; 2] {
        [self.x, self.y]
    }

    fn ways(&self) -> impl Iterator<Item = usize> + use<> {
        let next = self.next;
        (0..4).filter(move |way| next[*way] != NONE)
    }
}

/// A border between two regions from one node to another, through vertices that are on no other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arc {
    /// Its vertices in [`Borders::path`], both ends among them.
    pub(super) from: usize,
    pub(super) to: usize,
    /// The regions to its right and left.
    sides: [u32; 2],
}

/// All borders of a label map.
#[derive(Debug)]
pub(super) struct Borders {
    pub(super) regions: Regions,
    /// Row by row, from the left.
    pub(super) vertices: Vec<Vertex>,
    /// Where the vertices of each row begin, and their number.
    pub(super) rows: Vec<u32>,
    /// The vertices of arcs, one arc after the other.
    pub(super) path: Vec<u32>,
    pub(super) arcs: Vec<Arc>,
    /// Of each vertex its place in `path`, if only one arc has it.
    pub(super) place: Vec<u32>,
    /// Of each node the half-arc (twice its arc, and 1 if it ends here) that leaves each way.
    leaving: Vec<[u32; 4]>,
    /// Of each vertex its number among the nodes.
    node: Vec<u32>,
}

/// A closed border with its region on the right.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) region: u32,
    /// Pixels within; negative for the hole of a region.
    pub(super) area: i64,
    /// Its half-arcs: twice an arc, and 1 if it runs backwards.
    pub(super) halves: Vec<u32>,
}

impl Borders {
    /// Those of all regions, with the runs in `cuts` cut off from what lies below them.
    pub(super) fn of(labels: &Labels, cuts: &Cuts) -> Self {
        let mut vertices = Vec::new();
        let mut rows = Vec::with_capacity(labels.height + 2);
        // The last vertex of a column from which a border leads down.
        let mut open = vec![NONE; labels.width + 1];
        let regions = sweep(labels, cuts, |y, above, below| {
            rows.resize(y + 1, vertices.len() as u32);
            meet(y, above, below, &mut vertices, &mut open);
        });
        rows.resize(labels.height + 2, vertices.len() as u32);
        for vertex in &mut vertices {
            vertex.right = vertex.right.map(|region| regions.find(region));
        }
        let node = vec![NONE; vertices.len()];
        let place = node.clone();
        let (path, arcs, leaving) = (Vec::with_capacity(vertices.len() + 8), Vec::new(), Vec::new());
        let mut borders = Self { regions, vertices, rows, path, arcs, place, leaving, node };
        borders.walk([labels.width as u32, labels.height as u32]);
        borders
    }

    /// Finds the arcs. Nodes are vertices where borders meet, the corners of the picture, and two of each border
    /// without any.
    fn walk(&mut self, [width, height]: [u32; 2]) {
        for at in 0..self.vertices.len() {
            let vertex = &self.vertices[at];
            let corner = (vertex.x == 0 || vertex.x == width) && (vertex.y == 0 || vertex.y == height);
            if corner || vertex.ways().count() > 2 {
                self.make_node(at as u32);
            }
        }
        for at in 0..self.vertices.len() as u32 {
            if self.node[at as usize] != NONE {
                for way in self.vertices[at as usize].ways() {
                    if self.leaving[self.node[at as usize] as usize][way] == NONE {
                        self.follow(at, way);
                    }
                }
            }
        }
        for at in 0..self.vertices.len() as u32 {
            if self.node[at as usize] == NONE && self.place[at as usize] == NONE {
                self.make_node(at);
                // The first of its border in reading order: that leads from it to the right and down.
                self.follow(at, EAST);
            }
        }
    }

    fn make_node(&mut self, at: u32) {
        self.node[at as usize] = self.leaving.len() as u32;
        self.leaving.push([NONE; 4]);
    }

    /// The arc that leaves a node one way.
    fn follow(&mut self, start: u32, way: usize) {
        let from = self.path.len();
        let sides = [self.vertices[start as usize].right[way], self.vertices[start as usize].right[(way + 3) % 4]];
        let (mut at, mut ahead) = (start, way);
        self.path.push(at);
        loop {
            at = self.vertices[at as usize].next[ahead];
            self.place[at as usize] = self.path.len() as u32;
            self.path.push(at);
            if self.node[at as usize] != NONE {
                break;
            }
            let back = (ahead + 2) % 4;
            ahead = self.vertices[at as usize].ways().find(|way| *way != back).unwrap_or(back);
        }
        let mut ends = vec![from, self.path.len() - 1];
        if at == start {
            // A closed one is cut at its farthest vertex, so that all have two ends.
            let distance = |place: usize| {
                let [a, b] = [start, self.path[place]].map(|at| &self.vertices[at as usize]);
                u64::from(a.x.abs_diff(b.x)).pow(2) + u64::from(a.y.abs_diff(b.y)).pow(2)
            };
            let far = (from + 1..ends[1]).rev().max_by_key(|place| distance(*place)).unwrap_or(from + 1);
            let vertex = self.path[far];
            self.make_node(vertex);
            self.place[vertex as usize] = NONE;
            ends.insert(1, far);
        }
        self.place[at as usize] = NONE;
        for ends in ends.windows(2) {
            let arc = Arc { from: ends[0], to: ends[1], sides };
            let half = 2 * self.arcs.len() as u32;
            for (end, beside, half) in [(arc.from, arc.from + 1, half), (arc.to, arc.to - 1, half + 1)] {
                let way = self.way(end, beside);
                self.leaving[self.node[self.path[end] as usize] as usize][way] = half;
            }
            self.arcs.push(arc);
        }
    }

    /// The way from one place of the path to the next to it.
    fn way(&self, from: usize, to: usize) -> usize {
        let [from, to] = [from, to].map(|place| self.vertices[self.path[place] as usize].at());
        match (to[0].cmp(&from[0]), to[1] > from[1]) {
            (std::cmp::Ordering::Greater, _) => EAST,
            (std::cmp::Ordering::Less, _) => WEST,
            (_, true) => SOUTH,
            (_, false) => NORTH,
        }
    }

    /// The rings of all regions that are labelled. None meets itself: where two pixels of a region touch at their
    /// corner alone, the border keeps to what is between them.
    pub(super) fn rings(&self) -> Vec<Ring> {
        let mut seen = vec![false; 2 * self.arcs.len()];
        let mut rings = Vec::new();
        for start in 0..seen.len() {
            let region = self.arcs[start / 2].sides[start % 2];
            if seen[start] || !self.regions.is_labeled(region) {
                continue;
            }
            let mut ring = Ring { region, area: 0, halves: Vec::new() };
            let mut half = start;
            while !std::mem::replace(&mut seen[half], true) {
                ring.halves.push(half as u32);
                ring.area += self.swept(half);
                half = self.turn(half, region);
            }
            rings.push(ring);
        }
        rings
    }

    /// The half-arc by which the border of a region on the right goes on.
    fn turn(&self, half: usize, region: u32) -> usize {
        let arc = self.arcs[half / 2];
        let [before, end] = if half.is_multiple_of(2) { [arc.to - 1, arc.to] } else { [arc.from + 1, arc.from] };
        let (ahead, end) = (self.way(before, end), self.path[end] as usize);
        let (vertex, leaving) = (&self.vertices[end], &self.leaving[self.node[end] as usize]);
        let ways = [(ahead + 3) % 4, ahead, (ahead + 1) % 4];
        let on = ways.into_iter().find(|way| vertex.next[*way] != NONE && vertex.right[*way] == region);
        // There is one: borders are closed.
        on.map_or(half, |way| leaving[way] as usize)
    }

    /// What a half-arc adds to the area of its ring.
    fn swept(&self, half: usize) -> i64 {
        let arc = self.arcs[half / 2];
        let steps = self.path[arc.from..=arc.to].windows(2).map(|step| {
            let [a, b] = [step[0], step[1]].map(|at| &self.vertices[at as usize]);
            i64::from(a.x) * (i64::from(b.y) - i64::from(a.y))
        });
        let area: i64 = steps.sum();
        if half.is_multiple_of(2) { area } else { -area }
    }

    /// The sides of pixels that run down or up in a ring: column, and first and last row.
    pub(super) fn uprights(&self, ring: &Ring) -> impl Iterator<Item = (u32, std::ops::Range<u32>)> {
        ring.halves.iter().flat_map(|half| {
            let arc = self.arcs[*half as usize / 2];
            self.path[arc.from..=arc.to].windows(2).filter_map(|step| {
                let [a, b] = [step[0], step[1]].map(|at| &self.vertices[at as usize]);
                (a.x == b.x).then(|| (a.x, a.y.min(b.y)..a.y.max(b.y)))
            })
        })
    }
}

/// Adds the vertices between two rows.
fn meet(y: usize, above: &[Run], below: &[Run], vertices: &mut Vec<Vertex>, open: &mut [u32]) {
    let (mut upper, mut lower) = (0, 0);
    let mut left = NONE;
    let next = |runs: &[Run], at: usize| runs.get(at + 1).map_or(u32::MAX, |run| run.start);
    loop {
        let (a, b) = (next(above, upper), next(below, lower));
        let start = a.min(b);
        if start == u32::MAX {
            break;
        }
        let (up, down) = (a == start, b == start);
        let (northwest, southwest) = (above[upper], below[lower]);
        (upper, lower) = (upper + usize::from(up), lower + usize::from(down));
        let (northeast, southeast) = (above[upper], below[lower]);
        let (to_left, to_right) = (!northwest.joins(&southwest), !northeast.joins(&southeast));
        if !to_left && !to_right {
            // A border straight down.
            continue;
        }
        let (x, at) = (start - 1, vertices.len() as u32);
        let mut vertex = Vertex {
            x,
            y: y as u32,
            next: [NONE; 4],
            right: [southeast.region, southwest.region, northwest.region, northeast.region],
        };
        if to_left {
            vertex.next[WEST] = left;
            vertices[left as usize].next[EAST] = at;
        }
        if up {
            let above = open[x as usize];
            vertex.next[NORTH] = above;
            vertices[above as usize].next[SOUTH] = at;
        }
        if down {
            open[x as usize] = at;
        }
        left = if to_right { at } else { NONE };
        vertices.push(vertex);
    }
}
