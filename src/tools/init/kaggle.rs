//! Run lengths in a table, as competitions of Kaggle have them: an image, a class and `start length start length …` per
//! row.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::dataset::pairs::plain_stem;
use crate::error::{Error, ErrorKind, Result};
use crate::image::image_size;
use crate::image::raster::{Area, from_runs};
use crate::tools::check::OnProgress;
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Groups, Outlined, Outlines, label};
use crate::tools::init::pictures::{Found, Pictures, file_name};
use crate::tools::init::plan::{DatasetPlan, Place};
use crate::tools::init::read;
use crate::tools::init::via::rows;

const RUNS: [&str; 5] = ["encodedpixels", "rlemask", "rle", "segmentation", "maskrle"];
const IMAGE: [&str; 8] = ["imageid", "image", "img", "filename", "imagename", "file", "id", "imagefilename"];
const CLASS: [&str; 6] = ["classid", "class", "label", "classname", "category", "categoryid"];
/// Image and class in one cell: `a.jpg_Fish`.
const BOTH: [&str; 2] = ["imagelabel", "imageidclassid"];

/// Areas from which it is decided whether pixels are numbered along rows or columns.
const SAMPLE: usize = 24;

/// The class where a table has none.
const ONLY: &str = "object";

/// Areas in a row of a table.
struct Row {
    image: String,
    class: String,
    runs: String,
    /// Its line, counted from 1.
    line: usize,
}

/// A plan for a folder of images and a CSV file with run lengths.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut notes = Notes::default();
    let tables = tables(place, &mut notes)?;
    if tables.iter().all(|(_, rows)| rows.iter().all(|row| row.runs.is_empty())) {
        return Ok(None);
    }
    let mut names: Vec<String> = tables.iter().flat_map(|(_, rows)| rows).map(|row| row.class.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let pictures = Pictures::below(place, &place.images()?);
    let mut images = Images { pictures: &pictures, by_stem: by_stem(&pictures), sizes: HashMap::new() };
    let sample = sample(&tables, &mut images);
    let along_rows = lie_along_rows(&sample);
    let mut groups = Groups::new();
    let mut absent = None;
    for (path, rows) in tables {
        let mut outlined: HashMap<String, Outlined> = HashMap::new();
        for row in rows {
            let found = images.find(&row.image);
            let Some(image) = Pictures::left_out(found, &mut absent, &mut notes, || format!("`{}`", row.image))? else {
                continue;
            };
            let image = image.name();
            let one = outlined.entry(image.to_string()).or_insert_with(|| Outlined {
                name: image.to_string(),
                source: path.clone(),
                declared: None,
                areas: Vec::new(),
                fault: None,
            });
            if row.runs.is_empty() {
                continue;
            }
            // What cannot be read is said with the other images.
            let Some(size) = images.size(image) else { continue };
            let which = format!("line {} (`{}`)", row.line, row.class);
            match pairs(&row.runs).and_then(|pairs| area(&pairs, size, along_rows)) {
                Ok(area) => {
                    let at = names.iter().position(|name| *name == row.class).map_or(0, label);
                    one.areas.push((area, at, which));
                }
                Err(error) => {
                    one.fault.get_or_insert(
                        Error::new(format!("{which} of `{}` cannot be used", path.display()))
                            .with_source(error)
                            .with_hint("get the table again, or remove the line"),
                    );
                }
            }
        }
        let mut outlined: Vec<Outlined> = outlined.into_values().collect();
        outlined.sort_by(|a, b| a.name.cmp(&b.name));
        for mut one in outlined {
            let (split, images, below) = pictures.placed(&one.name);
            one.name = below.to_string();
            groups.entry((split, images)).or_default().push(one);
        }
    }
    if let Some(absent) = absent.filter(|_| groups.is_empty()) {
        return Err(absent);
    }
    let kind = "run lengths in a table";
    let names: Vec<String> = names.into_iter().map(called).collect();
    let mut plan = place.outlines(Outlines::in_pixels(kind, &names, groups, notes))?;
    let order = if along_rows { "rows" } else { "columns" };
    let why = match sample.is_empty() {
        true => "as Kaggle counts; the images are square, and do not tell",
        false => "by which areas are connected",
    };
    plan.notes.insert(0, format!("run lengths count the pixels along {order}, from 1, {why}"));
    Ok(Some(plan))
}

/// The tables of run lengths in the folder.
fn tables(place: &Place, notes: &mut Notes) -> Result<Vec<(PathBuf, Vec<Row>)>> {
    let mut tables = Vec::new();
    for (name, path) in place.files(place.dir) {
        if !name.to_lowercase().ends_with(".csv") || !may_be(&path) {
            continue;
        }
        // What is to be filled in.
        if file_name(&name).to_lowercase().contains("submission") {
            notes.add("tables of submissions were not read", format!("`{name}`"));
            continue;
        }
        if let Some(table) = table(&read::annotations(&path)?) {
            tables.push((path, table));
        }
    }
    Ok(tables)
}

/// The images that tables name, by path, by file name, or without the ending.
struct Images<'a> {
    pictures: &'a Pictures,
    by_stem: HashMap<String, Option<&'a str>>,
    /// Width and height of those that were looked at; none of what cannot be read.
    sizes: HashMap<String, Option<[usize; 2]>>,
}

impl<'a> Images<'a> {
    fn find(&self, written: &str) -> Result<Found<'a>> {
        let pictures = self.pictures;
        match pictures.find(written, "") {
            Err(error) if error.kind() == ErrorKind::NotFound => match self.by_stem.get(written) {
                Some(Some(name)) => Ok(Found::There(name)),
                _ => Err(error),
            },
            found => found,
        }
    }

    fn size(&mut self, image: &str) -> Option<[usize; 2]> {
        let look = || image_size(self.pictures.root().join(image)).ok().map(|(width, height)| [width, height]);
        *self.sizes.entry(image.to_string()).or_insert_with(look)
    }
}

/// Runs of the first areas in images that are not square, and their sizes: what tells how pixels are numbered.
fn sample(tables: &[(PathBuf, Vec<Row>)], images: &mut Images) -> Vec<(Vec<[u64; 2]>, [usize; 2])> {
    let mut sample = Vec::new();
    for row in tables.iter().flat_map(|(_, rows)| rows).filter(|row| !row.runs.is_empty()) {
        if sample.len() == SAMPLE {
            break;
        }
        let found = images.find(&row.image).ok().map(|image| image.name());
        let Some([width, height]) = found.and_then(|image| images.size(image)) else { continue };
        if let (true, Ok(pairs)) = (width != height, pairs(&row.runs)) {
            sample.push((pairs, [width, height]));
        }
    }
    sample
}

/// A number alone is not a name.
fn called(class: String) -> String {
    if class.bytes().all(|byte| byte.is_ascii_digit()) { format!("class {class}") } else { class }
}

/// Whether the file starts with the heading of such a table.
fn may_be(path: &Path) -> bool {
    let start = read::start(path, 1 << 12).unwrap_or_default();
    Columns::of(start.lines().next().unwrap_or_default()).is_some()
}

struct Columns {
    between: char,
    runs: usize,
    image: usize,
    class: Option<usize>,
    /// The image's cell holds the class too.
    both: bool,
}

impl Columns {
    fn of(heading: &str) -> Option<Self> {
        let between = [',', ';', '\t'].into_iter().max_by_key(|between| heading.matches(*between).count())?;
        let plain = |cell: &str| cell.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
        let cells: Vec<String> = heading.split(between).map(plain).collect();
        let find = |names: &[&str]| names.iter().find_map(|name| cells.iter().position(|cell| cell == name));
        let both = find(&BOTH);
        Some(Self {
            between,
            runs: find(&RUNS)?,
            image: both.or_else(|| find(&IMAGE))?,
            class: find(&CLASS),
            both: both.is_some(),
        })
    }
}

/// The rows of a table; `None` of another.
fn table(text: &str) -> Option<Vec<Row>> {
    let columns = Columns::of(text.lines().next()?)?;
    let cell = |row: &[String], at: usize| row.get(at).map(|cell| cell.trim().to_string()).unwrap_or_default();
    let row = |(at, row): (usize, Vec<String>)| {
        let (mut image, mut class) =
            (cell(&row, columns.image), columns.class.map_or(ONLY.to_string(), |at| cell(&row, at)));
        if columns.both
            && let Some((name, end)) = image.clone().rsplit_once('_')
        {
            (image, class) = (name.to_string(), end.to_string());
        }
        // Some write -1 for nothing.
        let runs = Some(cell(&row, columns.runs))
            .filter(|runs| runs != "-1" && !runs.eq_ignore_ascii_case("nan"))
            .unwrap_or_default();
        Row { image, class, runs, line: at + 1 }
    };
    let all = rows(text, columns.between).into_iter().enumerate().skip(1).filter(|(_, row)| row.len() > 1);
    let all: Vec<Row> = all.map(row).filter(|row| !row.image.is_empty()).collect();
    // Polygons and other texts are not runs.
    let numbers = |row: &Row| row.runs.split_whitespace().all(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    (!all.is_empty() && all.iter().take(1000).filter(|row| numbers(row)).count() * 2 > all.len().min(1000))
        .then_some(all)
}

/// Images by their file names without ending; none where two have the same.
fn by_stem(pictures: &Pictures) -> HashMap<String, Option<&str>> {
    let mut found: HashMap<String, Option<&str>> = HashMap::new();
    for name in pictures.names() {
        let stem = plain_stem(file_name(name)).unwrap_or(file_name(name)).to_string();
        found.entry(stem).and_modify(|other| *other = None).or_insert(Some(name));
    }
    found
}

/// Starts, counted from 1, and lengths.
fn pairs(text: &str) -> Result<Vec<[u64; 2]>> {
    let numbers: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    let numbers = numbers.ok_or_else(|| Error::new("its run lengths hold something other than numbers"))?;
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::new("its run lengths are an odd number of values, and not pairs of a start and a length"));
    }
    let mut pairs = pairs.to_vec();
    pairs.sort_unstable();
    let mut end = 1;
    for [start, length] in &pairs {
        if *start < end {
            let why = if *start == 0 { "begin at 0, and pixels are counted from 1" } else { "overlap" };
            return Err(Error::new(format!("its run lengths {why}")));
        }
        end = start.saturating_add(*length);
    }
    Ok(pairs)
}

/// What pairs cover in a picture.
fn area(pairs: &[[u64; 2]], [width, height]: [usize; 2], along_rows: bool) -> Result<Area> {
    let all = width as u64 * height as u64;
    if let Some([start, length]) = pairs.last().filter(|[start, length]| start.saturating_add(*length) > all + 1) {
        return Err(Error::new(format!(
            "its run of {length} pixels from {start} on ends outside the image, which has {width}x{height}"
        )));
    }
    if along_rows {
        return from_runs(&turned(pairs, width, height), width, height);
    }
    let (mut runs, mut at) = (Vec::new(), 1);
    for [start, length] in pairs {
        runs.extend([start - at, *length]);
        at = start + length;
    }
    runs.push(all + 1 - at);
    from_runs(&runs, width, height)
}

/// Runs down the columns of what is numbered along the rows.
fn turned(pairs: &[[u64; 2]], width: usize, height: usize) -> Vec<u64> {
    let mut covered = vec![false; width * height];
    for [start, length] in pairs {
        covered[(*start - 1) as usize..(*start - 1 + *length) as usize].fill(true);
    }
    let mut runs = vec![0];
    let mut now = false;
    for at in (0..width).flat_map(|x| (0..height).map(move |y| y * width + x)) {
        if covered[at] != now {
            now = !now;
            runs.push(0);
        }
        if let Some(last) = runs.last_mut() {
            *last += 1;
        }
    }
    runs
}

/// Whether areas are connected far better where pixels are numbered along rows than down columns.
fn lie_along_rows(sample: &[(Vec<[u64; 2]>, [usize; 2])]) -> bool {
    let (mut by_columns, mut by_rows) = (0usize, 0usize);
    for (pairs, [width, height]) in sample {
        // Steps from a line of pixels to the next where one is covered and the other is not.
        let steps = |line: usize| {
            let mut covered = vec![false; width * height];
            for [start, length] in pairs {
                let (from, to) = (*start - 1, (*start - 1).saturating_add(*length));
                if to > covered.len() as u64 {
                    return 0;
                }
                covered[from as usize..to as usize].fill(true);
            }
            (line..covered.len()).filter(|at| covered[*at] != covered[at - line]).count()
        };
        by_columns += steps(*height);
        by_rows += steps(*width);
    }
    2 * by_rows < by_columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_competitions_are_read() {
        for (text, image, class) in [
            ("ImageId,ClassId,EncodedPixels\na.jpg,3,1 2 5 2\n", "a.jpg", "3"),
            ("ImageId_ClassId,EncodedPixels\na.jpg_3,1 2 5 2\na.jpg_4,\n", "a.jpg", "3"),
            ("Image_Label,EncodedPixels\r\nsky_1.jpg_Fish,1 2 5 2\r\n", "sky_1.jpg", "Fish"),
            ("img;rle_mask\na.jpg;1 2 5 2\n", "a.jpg", ONLY),
            ("id,class,segmentation\n\"a\",stomach,1 2 5 2\n", "a", "stomach"),
        ] {
            let rows = table(text).unwrap();
            assert_eq!(
                (rows[0].image.as_str(), rows[0].class.as_str(), rows[0].runs.as_str()),
                (image, class, "1 2 5 2")
            );
            assert_eq!(rows[0].line, 2);
        }
        for other in
            ["name,r,g,b\nsky,1,2,3\n", "id,segmentation\na,\"[[1, 2], [3, 4]]\"\n", "ImageId,Label\na,b\n", ""]
        {
            assert!(table(other).is_none(), "{other}");
        }
    }

    #[test]
    fn runs_are_pairs_within_the_picture() {
        assert_eq!(pairs("7 2 1 3").unwrap(), [[1, 3], [7, 2]]);
        for (text, why) in
            [("1 2 3", "odd number"), ("1 x", "other than numbers"), ("1 3 3 1", "overlap"), ("0 3", "from 1")]
        {
            assert!(pairs(text).unwrap_err().to_string().contains(why), "{text}");
        }
        // A picture of 3 x 2: the second column, and the second row.
        let runs = |along_rows| match area(&[[3, 2]], [3, 2], along_rows).unwrap() {
            Area::Runs { runs, .. } => runs,
            _ => Vec::new(),
        };
        assert_eq!((runs(false), runs(true)), (vec![2, 2, 2], vec![1, 1, 2, 1, 1]));
        assert!(area(&[[6, 2]], [3, 2], false).unwrap_err().to_string().contains("outside the image"));
        assert!(area(&[[u64::MAX, 2]], [3, 2], true).is_err());
    }

    #[test]
    fn areas_hang_together_in_one_order() {
        // A rectangle of 4 columns and 6 rows in 20 x 10 pixels, numbered both ways.
        let columns: Vec<[u64; 2]> = (5..9).map(|x| [x * 10 + 3, 6]).collect();
        let rows: Vec<[u64; 2]> = (2..8).map(|y| [y * 20 + 6, 4]).collect();
        assert!(!lie_along_rows(&[(columns, [20, 10])]));
        assert!(lie_along_rows(&[(rows, [20, 10])]));
        assert!(!lie_along_rows(&[]));
    }
}
