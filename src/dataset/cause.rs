//! Why masks hold values that their description does not know, and the lines that would remedy it.

use std::collections::BTreeMap;
use std::fmt;

use crate::dataset::spec::{ClassSpec, Source};

/// A value of fewer pixels than this is taken for a slip of the pen.
pub(crate) const STRAY: u64 = 20;

/// Longer remedies are no hint.
const ONE_LINE: usize = 400;

/// More unknown values than this are not labels.
const MANY: usize = 32;

/// The values of one mask, or of all, beside what the description knows.
pub(crate) struct SeenValues<'a> {
    /// Pixels of every value, the known ones too.
    pub(crate) pixels: &'a BTreeMap<Source, u64>,
    /// The values that are neither a class nor ignored, in order.
    pub(crate) unknown: Vec<Source>,
    pub(crate) classes: &'a [ClassSpec],
    pub(crate) ignore: &'a [Source],
}

/// A likely cause.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    /// Its name in JSON.
    pub(crate) code: &'static str,
    pub(crate) why: String,
    /// Keys of the dataset's TOML with the values they should have.
    pub(crate) toml: Option<String>,
    /// What to do if the cause is another one.
    pub(crate) otherwise: Option<String>,
}

impl Cause {
    fn new(code: &'static str, why: impl Into<String>) -> Self {
        Self { code, why: why.into(), toml: None, otherwise: None }
    }

    fn toml(self, lines: String) -> Self {
        Self { toml: Some(lines), ..self }
    }

    fn otherwise(self, text: String) -> Self {
        Self { otherwise: Some(text), ..self }
    }
}

/// On one line, as a hint has it.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match &self.toml {
            Some(toml) if toml.len() > ONE_LINE => f.write_str("; `structtoken data check` prints the lines to add")?,
            Some(toml) => write!(f, ": {}", toml.replace('\n', ", "))?,
            None => {}
        }
        self.otherwise.as_ref().map_or(Ok(()), |text| write!(f, "; {text}"))
    }
}

/// The likeliest cause.
pub(crate) fn of(seen: &SeenValues) -> Cause {
    let special = match seen.unknown.first() {
        Some(Source::Rgb(_)) => seen.of_colors(),
        _ => seen.of_numbers(),
    };
    special.unwrap_or_else(|| seen.in_general())
}

impl SeenValues<'_> {
    fn of_numbers(&self) -> Option<Cause> {
        let numbers = |values: &mut dyn Iterator<Item = &Source>| -> Vec<u16> {
            values.filter_map(|value| if let Source::Index(n) = value { Some(*n) } else { None }).collect()
        };
        let (unknown, all) = (numbers(&mut self.unknown.iter()), numbers(&mut self.pixels.keys()));
        let (&last, count) = (all.last()?, self.classes.len());
        if count == 2 && all == [0, 255] {
            let cause = Cause::new("binary-mask", "a binary mask of 0 and 255? then 255 is the second class");
            let otherwise = format!("if 255 marks pixels to ignore instead: {}", self.ignoring(&[Source::Index(255)]));
            return Some(cause.toml(self.classes(|index| Source::Index([0, 255][index]))).otherwise(otherwise));
        }
        if unknown == [255] {
            let cause = Cause::new("unmapped-255", "255 usually marks pixels to ignore");
            return Some(cause.toml(self.ignoring(&self.unknown)));
        }
        if all.len() > 1 && all.iter().all(|value| value % 257 == 0) && usize::from(last / 257) < count {
            let cause =
                Cause::new("stretched-values", "numbers of 8 bits that were stretched to 16 (257 times as large)?");
            return Some(cause.toml(self.classes(|index| Source::Index(257 * index as u16))));
        }
        if all.len() == count && count > 1 && is_even(&all) {
            let why = "numbers that were spread out to be visible? there are as many values as classes, evenly spaced";
            return Some(Cause::new("stretched-values", why).toml(self.classes(|index| Source::Index(all[index]))));
        }
        if let [first, rest @ ..] = unknown.as_slice()
            && usize::from(*first) == count
            && matches!(rest, [] | [255])
        {
            return Some(self.counted_from_one(*first, all[0] == 0, !rest.is_empty()));
        }
        let pixels = |value: u16| self.pixels.get(&Source::Index(value)).copied().unwrap_or(0);
        let (ends, sum) = (pixels(0) + pixels(255), self.pixels.values().sum::<u64>());
        if unknown.len() > 2 && pixels(255) > 0 && last == 255 && 10 * ends >= 9 * sum {
            return Some(Cause::new(
                "smoothed-mask",
                "a mask of 0 and 255 with values between them: it was scaled with smoothing, or was once a JPEG; \
                 export it again as PNG, or scale it without smoothing (nearest)",
            ));
        }
        None
    }

    fn counted_from_one(&self, last: u16, zero: bool, border: bool) -> Cause {
        let mut ignore = Vec::new();
        ignore.extend(zero.then_some(Source::Index(0)));
        ignore.extend(border.then_some(Source::Index(255)));
        let mut lines = self.classes(|index| Source::Index(index as u16 + 1));
        if !ignore.is_empty() {
            lines = format!("{}\n{lines}", list(&ignore));
        }
        let why = if zero { "labels counted from 1, with 0 for everything else?" } else { "labels counted from 1?" };
        let otherwise = format!("if {last} marks pixels to ignore instead: {}", self.ignoring(&self.unknown));
        Cause::new("counted-from-one", why).toml(lines).otherwise(otherwise)
    }

    fn of_colors(&self) -> Option<Cause> {
        let color = |value: &Source| if let Source::Rgb(rgb) = value { Some(*rgb) } else { None };
        let unknown: Vec<[u8; 3]> = self.unknown.iter().filter_map(color).collect();
        let known: Vec<[u8; 3]> = self
            .classes
            .iter()
            .flat_map(|class| class.sources(0, super::spec::Encoding::Rgb))
            .flatten()
            .chain(self.ignore.iter().copied())
            .filter_map(|value| color(&value))
            .collect();
        if unknown.iter().all(|[r, g, b]| known.contains(&[*b, *g, *r])) {
            let lines = self.classes.iter().map(|class| {
                let sources = class.sources(0, super::spec::Encoding::Rgb).unwrap_or_default();
                sources
                    .iter()
                    .map(|source| if let Source::Rgb([r, g, b]) = source { Source::Rgb([*b, *g, *r]) } else { *source })
                    .collect()
            });
            let cause = Cause::new(
                "swapped-channels",
                "red and blue are swapped, as OpenCV writes arrays that are in RGB order",
            );
            return Some(cause.toml(table(self.classes, lines)));
        }
        let most = |hit: &dyn Fn([u8; 3]) -> bool| unknown.iter().filter(|rgb| hit(**rgb)).count();
        if most(&|rgb| known.iter().any(|other| near(rgb, *other))) * 10 >= unknown.len() * 9 && unknown.len() > 2 {
            return Some(Cause::new(
                "lossy-mask",
                "colours slightly off those of the classes: the masks were once JPEG or another lossy format; export \
                 them again as PNG",
            ));
        }
        let pairs = || known.iter().enumerate().flat_map(|(at, a)| known[..at].iter().map(move |b| (*a, *b)));
        if unknown.len() > 2 && most(&|rgb| pairs().any(|(a, b)| between(rgb, a, b))) * 2 >= unknown.len() {
            return Some(Cause::new(
                "smoothed-mask",
                "colours between those of the classes: edges were drawn with anti-aliasing, or the masks were scaled with \
                 smoothing; export them again without, or scale them with nearest",
            ));
        }
        None
    }

    fn in_general(&self) -> Cause {
        if self.unknown.len() > MANY {
            return Cause::new(
                "no-labels",
                "too many values for labels: is this a photograph, a probability map, or a mask that was resized with \
                 smoothing?",
            );
        }
        let stray = |value: &Source| self.pixels.get(value).is_some_and(|pixels| *pixels < STRAY);
        if self.pixels.values().sum::<u64>() > 100 * STRAY && self.unknown.iter().all(stray) {
            let why = format!("stray pixels? each has fewer than {STRAY} pixels");
            return Cause::new("stray-values", why).toml(self.ignoring(&self.unknown));
        }
        Cause::new("unknown-values", "ignore these pixels")
            .toml(self.ignoring(&self.unknown))
            .otherwise("or add each value to the `source` of its class".to_string())
    }

    /// The line that ignores these values beside those that are ignored already.
    fn ignoring(&self, values: &[Source]) -> String {
        list(&[self.ignore, values].concat())
    }

    /// The line that gives each class one source.
    fn classes(&self, source: impl Fn(usize) -> Source) -> String {
        table(self.classes, (0..self.classes.len()).map(|index| vec![source(index)]))
    }
}

/// `ignore = […]`.
pub(crate) fn list(values: &[Source]) -> String {
    let values: Vec<String> = values.iter().map(Source::to_string).collect();
    format!("ignore = [{}]", values.join(", "))
}

/// `classes = […]` on one line, with the given sources.
pub(crate) fn table(classes: &[ClassSpec], sources: impl Iterator<Item = Vec<Source>>) -> String {
    let class = |(class, sources): (&ClassSpec, Vec<Source>)| {
        let sources: Vec<String> = sources.iter().map(Source::to_string).collect();
        let color = class.color.map_or(String::new(), |color| format!("color = {}, ", Source::Rgb(color)));
        // JSON's strings are TOML's.
        let name = serde_json::Value::from(class.name.as_str());
        format!("{{ name = {name}, {color}source = [{}] }}", sources.join(", "))
    };
    let classes: Vec<String> = classes.iter().zip(sources).map(class).collect();
    format!("classes = [{}]", classes.join(", "))
}

/// Whether ascending numbers are multiples of a step above 1, rounded.
fn is_even(numbers: &[u16]) -> bool {
    let step = f64::from(numbers[numbers.len() - 1]) / (numbers.len() - 1) as f64;
    step >= 2.0 && numbers.iter().enumerate().all(|(at, value)| (f64::from(*value) - at as f64 * step).abs() <= 1.0)
}

fn near(a: [u8; 3], b: [u8; 3]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 8)
}

/// Whether `rgb` lies on the line from `a` to `b`, up to rounding, and at neither end.
pub(crate) fn between(rgb: [u8; 3], a: [u8; 3], b: [u8; 3]) -> bool {
    let step = |from: u8, to: u8| f64::from(to) - f64::from(from);
    let along: [f64; 3] = std::array::from_fn(|c| step(a[c], b[c]));
    let here: [f64; 3] = std::array::from_fn(|c| step(a[c], rgb[c]));
    let dot = |x: &[f64; 3], y: &[f64; 3]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let share = dot(&here, &along) / dot(&along, &along).max(1.0);
    (0.0..1.0).contains(&share)
        && rgb != a
        && here.iter().zip(along).all(|(here, along)| (here - share * along).abs() <= 1.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(classes: &[&str], ignore: &[Source], pixels: &[(Source, u64)], known: &[Source]) -> Cause {
        let class = |name: &&str| ClassSpec { name: name.to_string(), color: None, source: None };
        let classes: Vec<ClassSpec> = classes.iter().map(class).collect();
        let pixels: BTreeMap<Source, u64> = pixels.iter().copied().collect();
        let unknown = pixels.keys().copied().filter(|value| !known.contains(value)).collect();
        of(&SeenValues { pixels: &pixels, unknown, classes: &classes, ignore })
    }

    fn numbers(classes: usize, values: &[u16]) -> Cause {
        let names = &["a", "b", "c", "d"][..classes];
        let known: Vec<Source> = (0..classes as u16).map(Source::Index).collect();
        cause(names, &[], &values.iter().map(|v| (Source::Index(*v), 500)).collect::<Vec<_>>(), &known)
    }

    #[test]
    fn numbers_are_explained() {
        for (classes, values, code, line) in [
            (2, &[0, 255][..], "binary-mask", Some("name = \"b\", source = [255]")),
            (2, &[0, 1, 255], "unmapped-255", Some("ignore = [255]")),
            (3, &[0, 257, 514], "stretched-values", Some("name = \"c\", source = [514]")),
            (4, &[0, 85, 170, 255], "stretched-values", Some("name = \"b\", source = [85]")),
            (3, &[1, 2, 3], "counted-from-one", Some("name = \"c\", source = [3]")),
            (3, &[0, 1, 2, 3, 255], "counted-from-one", Some("ignore = [0, 255]")),
            (3, &[0, 1, 2, 9], "unknown-values", Some("ignore = [9]")),
        ] {
            let cause = numbers(classes, values);
            assert_eq!(cause.code, code, "{values:?}");
            assert!(line.is_none_or(|line| cause.toml.as_ref().unwrap().contains(line)), "{cause}");
        }
        let few = [(Source::Index(0), 9000), (Source::Index(7), 3)];
        assert_eq!(cause(&["a"], &[], &few, &[Source::Index(0)]).code, "stray-values");
        let gray: Vec<_> = (0..=255).map(|v| (Source::Index(v), if v % 255 == 0 { 9000 } else { 3 })).collect();
        assert_eq!(cause(&["a", "b"], &[], &gray, &[Source::Index(0), Source::Index(1)]).code, "smoothed-mask");
    }

    #[test]
    fn points_between_colours_are_found() {
        assert!(between([64, 32, 10], [128, 64, 20], [0, 0, 0]) && between([127, 64, 20], [255, 128, 40], [0, 0, 0]));
        assert!(!between([64, 40, 10], [128, 64, 20], [0, 0, 0]));
        assert!(!between([0, 0, 0], [0, 0, 0], [9, 9, 9]) && !between([200, 100, 30], [128, 64, 20], [0, 0, 0]));
    }
}
