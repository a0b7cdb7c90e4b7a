//! Tables of classes whose first line names the columns.

use crate::dataset::spec::Source;
use crate::tools::init::class_name::ClassName;
use crate::tools::init::names_json::hex;

const NAME: [&str; 9] = ["name", "class", "label", "classname", "labelname", "title", "category", "names", "classes"];
const VALUE: [&str; 8] = ["id", "index", "value", "pixelvalue", "classid", "labelid", "idx", "number"];
const COLOR: [&str; 8] = ["color", "colour", "rgb", "hex", "colorhex", "hexcolor", "rgbcolor", "colors"];
const CHANNELS: [&[&str]; 3] = [&["r", "red", "rot"], &["g", "green", "gruen", "grün"], &["b", "blue", "blau"]];

/// Which column holds what.
struct Columns {
    name: usize,
    value: Option<usize>,
    color: Option<usize>,
    channels: Option<[usize; 3]>,
}

impl Columns {
    fn of(heading: &[&str]) -> Option<Self> {
        let plain: Vec<String> = heading
            .iter()
            .map(|cell| {
                cell.trim_start_matches('#').chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
            })
            .collect();
        let find = |names: &[&str]| names.iter().find_map(|name| plain.iter().position(|cell| cell == name));
        let channels = CHANNELS.map(find);
        let channels = match channels {
            [Some(r), Some(g), Some(b)] => Some([r, g, b]),
            _ => None,
        };
        let columns = Self { name: find(&NAME)?, value: find(&VALUE), color: find(&COLOR), channels };
        (columns.value.is_some() || columns.color.is_some() || channels.is_some()).then_some(columns)
    }
}

/// The classes of a table; `None` of text without such a heading, or whose lines do not fit it.
pub(super) fn parse<'a>(
    lines: impl Iterator<Item = &'a str>,
    split: impl Fn(&'a str) -> Vec<&'a str>,
) -> Option<Vec<ClassName>> {
    let rows: Vec<Vec<&str>> = lines.map(split).collect();
    let (heading, rows) = rows.split_first()?;
    let columns = Columns::of(heading)?;
    let cell = |row: &[&'a str], at: usize| row.get(at).copied().unwrap_or_default().trim();
    // Some write colours as shares.
    let numbers = |row: &Vec<&'a str>| -> Option<[f64; 3]> {
        let of = |at: usize| cell(row, at).parse::<f64>().ok().filter(|n| n.is_finite());
        let [r, g, b] = columns.channels?.map(of);
        Some([r?, g?, b?])
    };
    let shares = {
        let all: Vec<f64> = rows.iter().filter_map(numbers).flatten().collect();
        all.iter().all(|n| (0.0..=1.0).contains(n)) && all.iter().any(|n| n.fract() != 0.0)
    };
    let class = |row: &Vec<&'a str>| {
        let value = match columns.value.map(|at| cell(row, at)) {
            None | Some("") => None,
            Some(text) => Some(Source::Index(text.parse().ok()?)),
        };
        let channel = |n: f64| {
            let n = if shares { (n * 255.0).round() } else { n };
            (n.fract() == 0.0 && (0.0..=255.0).contains(&n)).then_some(n as u8)
        };
        let color = match (columns.channels, columns.color) {
            (Some(_), _) => {
                let [r, g, b] = numbers(row)?.map(channel);
                Some([r?, g?, b?])
            }
            (None, Some(at)) => Some(color(cell(row, at))?),
            (None, None) => None,
        };
        let name = cell(row, columns.name).to_string();
        match (value, color) {
            (None, None) => None,
            (Some(value), color) => Some(ClassName { name, value: Some(value), color }),
            (None, Some(rgb)) => Some(ClassName { name, value: Some(Source::Rgb(rgb)), color: None }),
        }
    };
    let classes: Vec<ClassName> = rows.iter().map(class).collect::<Option<_>>()?;
    (!classes.is_empty() && classes.iter().all(|class| !class.name.is_empty())).then_some(classes)
}

/// `#0a141e`, `0x0a141e`, `10 20 30`, `(10, 20, 30)`.
fn color(text: &str) -> Option<[u8; 3]> {
    let inner = text.trim_matches(['(', ')', '[', ']']);
    let channels = || inner.split([' ', ',', ';']).filter(|part| !part.is_empty()).map(|part| part.parse::<u8>().ok());
    hex(text).or_else(|| <[u8; 3]>::try_from(channels().collect::<Option<Vec<u8>>>()?).ok())
}
