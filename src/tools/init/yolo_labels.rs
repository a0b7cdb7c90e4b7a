//! The text files of YOLO: one polygon per line, as fractions of width and height.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::image::image_size;
use crate::image::raster::Area;
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::label;
use crate::tools::init::plan::Place;
use crate::tools::init::read;

/// Shares of width and height may be beyond the border by so much: the outline is cut there.
const SLACK: f64 = 0.1;

/// Reads files of labels.
pub(super) struct Reader<'a> {
    pub(super) ids: Vec<u16>,
    pub(super) yaml: &'a Path,
    pub(super) place: &'a Place<'a>,
    pub(super) notes: Notes,
    pub(super) boxes: usize,
    pub(super) outlines: usize,
    /// Files with coordinates beyond 1.
    pub(super) beyond: Vec<Beyond>,
    /// All numbers of classes that the files hold.
    pub(super) held: BTreeSet<u16>,
}

/// The corners of a polygon, its label, and which line it is.
type Ring = (Vec<[f64; 2]>, u8, String);

/// A file with coordinates beyond 1.
pub(super) struct Beyond {
    /// The first of them, in words.
    pub(super) what: String,
    /// As percentages they lie in the image, and as pixels.
    percent: bool,
    pixels: bool,
    /// The image ends where percentages do.
    small: bool,
}

impl Beyond {
    fn of(what: String, rings: &[Ring], size: [usize; 2]) -> Self {
        let within = |most: [f64; 2]| {
            let inside = |at: f64, most: f64| (-SLACK * most..=(1.0 + SLACK) * most).contains(&at);
            rings.iter().flat_map(|(ring, ..)| ring).all(|[x, y]| inside(*x, most[0]) && inside(*y, most[1]))
        };
        let [width, height] = size.map(|side| side as f64);
        let small = size.iter().any(|side| *side < 2 * 100);
        Self { what, percent: within([100.0; 2]), pixels: within([width, height]), small }
    }

    /// What the coordinates of these files are, and the command that reads them so.
    /// `written`: it is said when the description is there.
    pub(super) fn meant(all: &[Self], place: &Place, written: bool) -> (&'static str, String) {
        let by =
            |percent: bool| place.again(written, |options| (options.percent, options.pixels) = (percent, !percent));
        let percent = all.iter().all(|one| one.percent);
        let pixels = all.iter().all(|one| one.pixels);
        match (percent, pixels) {
            (true, false) => ("percentages", format!("to have them divided by 100: {}", by(true))),
            // In large images, pixels would reach farther.
            (true, true) if all.iter().any(|one| !one.small) => (
                "pixels or percentages",
                format!("if they are percentages (none is above 100): {}; if they are pixels: {}", by(true), by(false)),
            ),
            _ => ("pixels", format!("to have them divided by the size of each image: {}", by(false))),
        }
    }
}

impl Reader<'_> {
    /// The polygons of a file.
    ///
    /// # Errors
    /// A line that is neither polygon nor box, of no class, or in pixels: the image's labels would be wrong.
    pub(super) fn read(&mut self, path: &Path, image: &Path) -> Result<Vec<(Area, u8, String)>> {
        let text = read::text(path, None)?;
        let mut rings: Vec<Ring> = Vec::new();
        let mut beyond = None;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let which = format!("line {}", number + 1);
            let place = format!("{which} of `{}`", path.display());
            let Some((class, numbers)) = self.line(line, &place)? else { continue };
            if let Some(far) = numbers.iter().find(|n| !(-SLACK..=1.0 + SLACK).contains(*n)) {
                beyond.get_or_insert(format!("{place} has the coordinate {far}"));
            }
            rings.push((numbers.as_chunks::<2>().0.to_vec(), label(class), which));
        }
        if let Some(what) = beyond {
            self.scale(&mut rings, what, path, image)?;
        }
        self.outlines += rings.len();
        Ok(rings.into_iter().map(|(ring, class, which)| (Area::Polygons(vec![ring]), class, which)).collect())
    }

    /// The class of a line, as its position among the ids, and the coordinates of its polygon; none of a box, or of too
    /// few corners.
    fn line(&mut self, line: &str, place: &str) -> Result<Option<(usize, Vec<f64>)>> {
        let wrong = |what: String| Error::new(format!("{place} {what}"));
        let line = match with_points(line) {
            Some(pointed) => {
                self.notes.add("numbers with a decimal comma were read", place);
                Cow::Owned(pointed)
            }
            None => Cow::Borrowed(line),
        };
        let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        let id = words.next().unwrap_or_default();
        // Some exporters write whole numbers as 3.0.
        let class = id.parse::<f64>().ok().filter(|id| id.fract() == 0.0 && (0.0..65536.0).contains(id));
        let class = class.map(|class| class as u16);
        self.held.extend(class);
        let class = class.and_then(|class| self.ids.iter().position(|id| *id == class));
        let Some(class) = class else {
            return Err(wrong(format!("has the class `{id}`")).with_hint(format!(
                "`{}` names {}, counted from 0: name all of them there",
                self.yaml.display(),
                match self.ids.len() {
                    1 => "1 class".to_string(),
                    count => format!("{count} classes"),
                }
            )));
        };
        let numbers: Option<Vec<f64>> = words.map(|word| word.parse().ok().filter(|n: &f64| n.is_finite())).collect();
        let Some(mut numbers) = numbers else {
            return Err(wrong("holds something other than numbers".to_string()).with_hint(SHAPE));
        };
        match numbers.len() {
            // A box, or one with the confidence of a prediction.
            4 | 5 => {
                self.boxes += 1;
                self.notes.add("boxes without an outline were left out", place);
                return Ok(None);
            }
            2 => {
                self.notes.add("polygons of fewer than 3 corners were left out", place);
                return Ok(None);
            }
            n if n >= 7 && n % 2 == 1 && (0.0..=1.0).contains(&numbers[n - 1]) => {
                numbers.pop();
                self.notes.add("polygons have an odd number of values; the last is read as a confidence", place);
            }
            n if n < 6 || n % 2 == 1 => {
                return Err(wrong("is neither a polygon nor a box".to_string()).with_hint(SHAPE));
            }
            _ => {}
        }
        Ok(Some((class, numbers)))
    }

    /// Divides coordinates beyond 1 by 100 or by the size of the image, as the options say; `what` is the first of
    /// them.
    ///
    /// # Errors
    /// No option says what they are, or it does not fit.
    fn scale(&mut self, rings: &mut [Ring], what: String, path: &Path, image: &Path) -> Result<()> {
        let (width, height) = image_size(image)?;
        let found = Beyond::of(what.clone(), rings, [width, height]);
        let (fits, scale, note) = match (self.place.options.pixels, self.place.options.percent) {
            (true, _) => {
                (found.pixels, [width as f64, height as f64], "files hold pixels, which were divided by the image size")
            }
            (_, true) => (found.percent, [100.0; 2], "files hold percentages, which were divided by 100"),
            _ => {
                let (are, hint) = Beyond::meant(std::slice::from_ref(&found), self.place, true);
                self.beyond.push(found);
                return Err(Error::new(format!("{what}, which is not a fraction of width or height"))
                    .with_hint(format!("if coordinates are {are}, {hint}; else export the file again")));
            }
        };
        if !fits {
            let other = match (self.place.options.pixels, found.percent) {
                (true, true) => format!("are they percentages? {}", Beyond::meant(&[found], self.place, true).1),
                _ => "the labels belong to another version of the image; export both again".to_string(),
            };
            return Err(Error::new(format!("{what}, and the image has {width}x{height} pixels")).with_hint(other));
        }
        for point in rings.iter_mut().flat_map(|(ring, ..)| ring) {
            *point = [point[0] / scale[0], point[1] / scale[1]];
        }
        self.notes.add(note, format!("`{}`", path.display()));
        Ok(())
    }
}

/// A line whose numbers have decimal commas, with points: all of them begin with 0 or 1 and a comma.
fn with_points(line: &str) -> Option<String> {
    let share = |word: &str| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        matches!(word, "0" | "1")
            || word.split_once(',').is_some_and(|(whole, rest)| matches!(whole, "0" | "1") && digits(rest))
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let (_, coordinates) = words.split_first()?;
    // Pairs of whole numbers would be 0 and 1 alone.
    let commas = coordinates.iter().filter(|word| word.contains(',')).count();
    let decimal = coordinates.iter().any(|word| word.len() > 3);
    (!line.contains('.') && commas > 2 && decimal && coordinates.iter().all(|word| share(word)))
        .then(|| line.replace(',', "."))
}

const SHAPE: &str = "a polygon is a class, then x and y of each corner as fractions of width and height";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_told_from_pixels() {
        let options = crate::tools::init::InitOptions::default();
        let (dir, toml) = (std::env::temp_dir(), std::env::temp_dir().join("x.toml"));
        let place = Place::new(&dir, &toml, &options).unwrap();
        let of = |most: f64, size: [usize; 2]| {
            let ring = vec![[1.5, 2.0], [most, 2.0], [most, most]];
            Beyond::of("x".into(), &[(ring, 1, String::new())], size)
        };
        let meant = |all: &[Beyond]| Beyond::meant(all, &place, false).0;
        assert_eq!(meant(&[of(90.0, [64, 48])]), "percentages", "beyond the image");
        assert_eq!(meant(&[of(40.0, [64, 48])]), "pixels");
        assert_eq!(meant(&[of(90.0, [640, 480])]), "pixels or percentages");
        assert_eq!(meant(&[of(300.0, [640, 480])]), "pixels");
        assert_eq!(meant(&[of(90.0, [640, 480]), of(300.0, [640, 480])]), "pixels");
        let hint = Beyond::meant(&[of(90.0, [64, 48])], &place, false).1;
        assert!(hint.contains("--percent") && !hint.contains("--pixels"), "{hint}");
    }

    #[test]
    fn decimal_commas_are_no_separators() {
        assert_eq!(with_points("0 0,25 0,5 1 0,5 0,75").as_deref(), Some("0 0.25 0.5 1 0.5 0.75"));
        for line in
            ["0 0.25,0.5 0.5,0.5 0.7,0.7", "0,0.25,0.5", "3 12,40 50,60 70,80", "0 0,1 1,1 1,0", "0 0.1 0.2 0.3 0.4"]
        {
            assert_eq!(with_points(line), None, "{line}");
        }
    }
}
