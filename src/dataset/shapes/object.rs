//! The forms of objects: shapes, and wholes that are told apart by how their parts lie.

use std::f32::consts::TAU;

use crate::rng::Rng;

/// What an object looks like, whatever covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Disc,
    Square,
    Triangle,
    Ring,
    Cross,
    /// A disc, a square and a triangle.
    Parts(Arrangement),
}

/// How the three parts of a whole lie. All wholes have the same parts: none of them tells which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrangement {
    /// In a row, with this part in the middle.
    Row(usize),
    /// In a triangle: disc, square and triangle follow each other clockwise, or the other way round.
    Around { clockwise: bool },
}

/// The parts of a whole.
const PARTS: [Form; 3] = [Form::Disc, Form::Square, Form::Triangle];

/// The forms of the classes, the background left out.
pub(super) const SHAPES: [Form; 5] = [Form::Disc, Form::Square, Form::Triangle, Form::Ring, Form::Cross];

/// The wholes of the classes, the background left out.
pub(super) const WHOLES: [Form; 5] = [
    Form::Parts(Arrangement::Row(0)),
    Form::Parts(Arrangement::Row(1)),
    Form::Parts(Arrangement::Row(2)),
    Form::Parts(Arrangement::Around { clockwise: true }),
    Form::Parts(Arrangement::Around { clockwise: false }),
];

/// A form somewhere, turned somehow.
pub(super) struct Object {
    form: Form,
    center: [f32; 2],
    radius: f32,
    turn: [f32; 2],
}

impl Object {
    pub(super) fn draw(rng: &mut Rng, form: Form, size: usize) -> Self {
        let size = size as f32;
        // Parts are a third of the whole.
        let (least, most) = if matches!(form, Form::Parts(_)) { (0.28, 0.4) } else { (0.2, 0.34) };
        let radius = size * rng.range(least, most);
        let center = [(); 2].map(|()| rng.range(radius * 0.8, size - radius * 0.8));
        let angle = rng.range(0.0, TAU);
        Self { form, center, radius, turn: [angle.cos(), angle.sin()] }
    }

    pub(super) fn pixels(&self, size: usize) -> Vec<usize> {
        // No form reaches further than this many of its radii.
        let reach = 1.25 * self.radius;
        let span = |center: f32| (center - reach).max(0.0) as usize..((center + reach) as usize + 1).min(size);
        let [c, s] = self.turn;
        let mut pixels = Vec::new();
        for y in span(self.center[1]) {
            for x in span(self.center[0]) {
                let [dx, dy] = [x as f32 - self.center[0], y as f32 - self.center[1]];
                if self.form.covers((c * dx + s * dy) / self.radius, (c * dy - s * dx) / self.radius) {
                    pixels.push(y * size + x);
                }
            }
        }
        pixels
    }
}

impl Form {
    /// Whether the form covers the point, its own radius being 1.
    fn covers(self, x: f32, y: f32) -> bool {
        let distance = x.hypot(y);
        match self {
            Self::Disc => distance < 0.9,
            Self::Square => x.abs().max(y.abs()) < 0.8,
            Self::Triangle => y > -0.55 && y < 1.1 - 1.75 * x.abs(),
            Self::Ring => distance < 1.0 && distance > 0.55,
            Self::Cross => x.abs().min(y.abs()) < 0.28 && x.abs().max(y.abs()) < 1.0,
            Self::Parts(arrangement) => (0..PARTS.len()).any(|at| {
                let (part, [cx, cy]) = arrangement.place(at);
                PARTS[part].covers((x - cx) / PART, (y - cy) / PART)
            }),
        }
    }
}

/// The radius of a part, that of the whole being 1.
const PART: f32 = 0.38;

impl Arrangement {
    /// Which part lies at place `at`, and where that is.
    fn place(self, at: usize) -> (usize, [f32; 2]) {
        match self {
            // The middle one first, then those left and right of it.
            Self::Row(middle) => ((middle + at) % 3, [[0.0, 0.0], [-0.72, 0.0], [0.72, 0.0]][at]),
            Self::Around { clockwise } => {
                let angle = TAU * at as f32 / 3.0;
                let sine = if clockwise { angle.sin() } else { -angle.sin() };
                (at, [0.52 * angle.cos(), 0.52 * sine])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All wholes are made of the same parts, so that their areas are alike; only places differ.
    #[test]
    fn wholes_differ_in_arrangement_alone() {
        let inside = |form: Form| -> Vec<bool> {
            (0..200 * 200)
                .map(|at| form.covers((at % 200) as f32 / 80.0 - 1.25, (at / 200) as f32 / 80.0 - 1.25))
                .collect()
        };
        let masks = WHOLES.map(inside);
        let areas = masks.each_ref().map(|mask| mask.iter().filter(|inside| **inside).count());
        let (least, most) = (areas.iter().min().unwrap(), areas.iter().max().unwrap());
        assert!(most - least < least / 50, "{areas:?}");
        for (i, a) in masks.iter().enumerate() {
            for b in &masks[i + 1..] {
                let apart = a.iter().zip(b).filter(|(a, b)| a != b).count();
                assert!(apart > areas[0] / 5, "{apart} of {} pixels", areas[0]);
            }
        }
        let parts: Vec<usize> = (0..3).map(|at| Arrangement::Row(2).place(at).0).collect();
        assert_eq!(parts, [2, 0, 1]);
    }
}
