//! Names matched with the values of masks: by what files say, by published colours, or by position ([`Positions`]).

use std::collections::HashMap;

use crate::dataset::spec::{Encoding, MAX_CLASSES, Source};
use crate::error::{Error, Result};
use crate::text::{Rest, shortened};
use crate::tools::check::MaskSurvey;
use crate::tools::init::class_name::ClassName;
use crate::tools::init::plan::Place;
use crate::tools::init::positions::Positions;
use crate::tools::init::used_options::Flag;

/// What LabelMe's lists begin with: -1, which is 255 in masks, and 0.
const IGNORED: &str = "__ignore__";
const BACKGROUND: &str = "_background_";

/// What is known of names before the values are looked at.
pub(super) struct Match<'a> {
    place: &'a Place<'a>,
    /// Masks of three equal channels.
    pub(super) gray: bool,
    /// Names of values that a file states.
    pub(super) given_names: HashMap<Source, String>,
    /// Names without values, in order.
    in_order: Vec<String>,
    /// Where they are from.
    source: Option<String>,
    /// A list says that 255 is ignored.
    pub(super) ignores_255: bool,
    /// The published set whose names these are.
    pub(super) published: Option<&'static str>,
    /// How many values have no name.
    pub(super) unnamed: usize,
    pub(super) notes: Vec<String>,
    pub(super) colors: bool,
    /// Values that masks hold.
    present: std::collections::HashSet<Source>,
    /// Names whose colour is in no mask.
    unseen: Vec<String>,
}

impl<'a> Match<'a> {
    pub(super) fn new(survey: &MaskSurvey, place: &'a Place<'a>, file: Option<(String, Vec<ClassName>)>) -> Self {
        let colors = survey.encoding() == Encoding::Rgb;
        let equal = |value: &Source| matches!(value, Source::Rgb([r, g, b]) if r == g && g == b);
        let gray = colors && !survey.colors.is_empty() && survey.colors.keys().all(equal);
        let mut found = Self {
            place,
            gray,
            given_names: HashMap::new(),
            in_order: Vec::new(),
            source: None,
            ignores_255: false,
            published: None,
            unnamed: 0,
            notes: Vec::new(),
            colors: colors && !gray,
            present: survey.values().keys().copied().collect(),
            unseen: Vec::new(),
        };
        if !place.options.names.is_empty() {
            found.in_order = place.options.names.clone();
        } else if let Some((file, named)) = file {
            found.by_file(survey, file, named);
        } else {
            found.by_published(survey);
        }
        found
    }

    /// How many names count the values from 0.
    pub(super) fn counted(&self) -> usize {
        let given_names = self
            .given_names
            .keys()
            .filter_map(|value| if let Source::Index(n) = value { Some(usize::from(*n) + 1) } else { None });
        self.in_order.len().max(given_names.max().unwrap_or(0))
    }

    /// How many names are in order, and count the values from 0.
    pub(super) fn positions(&self) -> usize {
        self.in_order.len()
    }

    fn number(&self, n: u16) -> Source {
        match u8::try_from(n) {
            Ok(gray) if self.gray => Source::Rgb([gray; 3]),
            _ => Source::Index(n),
        }
    }

    fn by_file(&mut self, survey: &MaskSurvey, file: String, named: Vec<ClassName>) {
        let palette = survey.palette.as_ref().filter(|_| survey.one_palette);
        let by_color = survey.encoding() == Encoding::Rgb && !self.gray;
        for (line, ClassName { name, value, color }) in named.iter().enumerate() {
            // Of a number and a colour, what masks hold counts.
            let value = &color.filter(|_| by_color).map(Source::Rgb).or(*value);
            match value {
                None => self.in_order.push(name.clone()),
                Some(Source::Index(n)) => {
                    self.given_names.entry(self.number(*n)).or_insert_with(|| name.clone());
                }
                Some(Source::Rgb(_)) if survey.encoding() == Encoding::Rgb => {
                    let Some(value) = *value else { continue };
                    match self.given_names.get(&value) {
                        Some(first) if first != name => self.notes.push(one_color(&file, first, name, &value)),
                        Some(_) => {}
                        None => drop(self.given_names.insert(value, name.clone())),
                    }
                }
                // Masks of numbers: the palette says which colour each is shown in; without one, lines are counted.
                Some(Source::Rgb(color)) => match palette {
                    Some(palette) => {
                        let shown = survey.numbers.keys().filter(
                            |value| matches!(value, Source::Index(n) if palette.get(usize::from(*n)) == Some(color)),
                        );
                        let shown: Vec<Source> = shown.copied().collect();
                        if shown.is_empty() {
                            self.unseen.push(name.clone());
                        }
                        for value in shown {
                            let first = self.given_names.entry(value).or_insert_with(|| name.clone());
                            if first != name {
                                self.notes.push(one_color(&file, first, name, &Source::Rgb(*color)));
                            }
                        }
                    }
                    None => drop(self.given_names.entry(Source::Index(line as u16)).or_insert_with(|| name.clone())),
                },
            }
        }
        let stated = named.iter().any(|named| matches!(named.value, Some(Source::Rgb(_))));
        if stated && survey.encoding() == Encoding::Index {
            self.notes.push(match palette {
                Some(_) => format!("the colours in `{file}` were looked up in the masks' palette"),
                None => format!("the masks have no palette, so the lines of `{file}` are counted from 0"),
            });
        }
        if self.given_names.is_empty() && self.in_order.first().is_some_and(|name| name == IGNORED) {
            self.ignores_255 = true;
            self.in_order.remove(0);
            // A list without the background is matched by position, as any other.
            let next = if self.in_order.first().is_some_and(|name| name == BACKGROUND) {
                let rest = std::mem::take(&mut self.in_order);
                self.given_names =
                    rest.into_iter().enumerate().map(|(n, name)| (self.number(n as u16), name)).collect();
                ", and the next name is 0"
            } else {
                ""
            };
            self.notes.push(format!("`{file}` is from LabelMe: {IGNORED} is 255, which is ignored{next}"));
        }
        if by_color {
            let lost = |(value, name): (&Source, &String)| {
                let Source::Rgb([r, g, b]) = *value else { return None };
                let swapped = Source::Rgb([b, g, r]);
                let unnamed = self.present.contains(&swapped) && !self.given_names.contains_key(&swapped);
                (!self.present.contains(value) && unnamed)
                    .then(|| format!("`{name}` is {value} there, and masks hold {swapped}"))
            };
            let mut lost: Vec<String> = self.given_names.iter().filter_map(lost).collect();
            lost.sort();
            if let Some(first) = lost.first() {
                self.notes.push(format!(
                    "red and blue may be swapped in the masks, as by OpenCV, or in `{file}` ({}): {first}; if so, swap them in \
                     the file and run `init` again",
                    lost.len()
                ));
            }
        }
        self.source = Some(file);
    }

    /// A name for each value, or for more values than occur.
    pub(super) fn give(&mut self, values: &[Source], notes: &mut Vec<String>) -> Result<Vec<(Source, String)>> {
        if !self.in_order.is_empty() {
            return self.by_position(values, notes);
        }
        let black_white =
            |value: &Source, n: u8| *value == Source::Rgb([n; 3]) || *value == Source::Index(u16::from(n));
        let white = |value: &Source| black_white(value, 255) || *value == Source::Index(u16::MAX);
        let binary = matches!(values, [a, b] if black_white(a, 0) && white(b));
        let mut unnamed = 0;
        let name = |(at, value): (usize, &Source)| match self.given_names.get(value) {
            Some(name) => (*value, name.clone()),
            None if binary => (*value, ["background", "object"][at].to_string()),
            None => {
                unnamed += 1;
                (*value, plain(value, self.gray))
            }
        };
        let named: Vec<(Source, String)> = values.iter().enumerate().map(name).collect();
        self.unnamed = unnamed;
        if let Some(shifted) = self.shifted(values, &named) {
            return Err(shifted);
        }
        if unnamed > 0 {
            // Said where all classes are known.
        } else if let Some(source) = &self.source {
            notes.push(format!("the class names are from `{source}`"));
        }
        let absent =
            self.given_names.iter().filter(|(value, _)| !self.present.contains(value) && **value != self.number(255));
        let mut absent: Vec<&str> = absent
            .map(|(_, name)| name.as_str())
            .filter(|name| *name != "void")
            .chain(self.unseen.iter().map(String::as_str))
            .collect();
        absent.sort_unstable();
        if let (Some(source), false) = (&self.source, absent.is_empty()) {
            let shown = shortened(absent.iter().map(|name| format!("`{name}`")), 8, Rest::Others);
            notes.push(format!("`{source}` also names {shown}, which no mask shows: left out"));
        }
        Ok(named)
    }

    /// Names are numbered from 1, and masks hold as many values from 0.
    fn shifted(&self, values: &[Source], named: &[(Source, String)]) -> Option<Error> {
        let (count, source) = (self.given_names.len(), self.source.as_ref()?);
        let counts = |first: u16| move |at: usize| self.number(first + at as u16);
        let fits = count > 1
            && values.len() == count
            && (0..count).all(|at| self.given_names.contains_key(&counts(1)(at)))
            && (0..count).map(counts(0)).eq(values.iter().copied());
        if !fits {
            return None;
        }
        let in_order: Vec<String> = (0..count).map(|at| self.given_names[&counts(1)(at)].clone()).collect();
        let as_written = named.iter().map(|(_, name)| name.clone()).collect();
        let command = |names| self.place.again_with_names(false, names).unwrap_or_else(|| "--names A,B,…".to_string());
        Some(
            Error::new(format!(
                "`{source}` numbers {count} names from 1, and the masks hold {count} values from 0: 0 has no name, and no mask \
                 shows `{}`",
                in_order[count - 1]
            ))
            .with_hint(format!(
                "say which: {} if the names count the values from 0, {} if the numbers are right",
                command(in_order.clone()),
                command(as_written)
            )),
        )
    }

    fn by_position(&self, values: &[Source], notes: &mut Vec<String>) -> Result<Vec<(Source, String)>> {
        let positions = Positions {
            place: self.place,
            from: self.source.as_ref().map_or("--names".to_string(), |file| format!("`{file}`")),
            given: !self.place.options.names.is_empty(),
            names: &self.in_order,
            values,
            gray: self.gray,
        };
        if self.colors {
            return positions.of_colors();
        }
        if values.is_empty() {
            return Ok(Vec::new());
        }
        if positions.names.len() > MAX_CLASSES {
            return Err(positions.unfit());
        }
        self.place.uses(Flag::NamesFrom);
        let (named, remarks) = match self.place.options.first {
            Some(first) => (positions.counted_from(first.into())?, Vec::new()),
            None => positions.that_fit()?,
        };
        if !positions.given {
            notes.push(format!("the class names are from {}", positions.from));
        }
        notes.extend(remarks);
        Ok(named)
    }
}

/// What is said of two names of one colour.
fn one_color(file: &str, first: &str, other: &str, color: &Source) -> String {
    format!(
        "`{file}` gives `{first}` and `{other}` one colour, {color}: it is `{first}`, and no mask can show the other"
    )
}

fn plain(value: &Source, gray: bool) -> String {
    match value {
        Source::Index(n) => format!("class {n}"),
        Source::Rgb([n, ..]) if gray => format!("class {n}"),
        Source::Rgb([r, g, b]) => format!("class {r}-{g}-{b}"),
    }
}
