//! Which of the values that masks hold stand for classes, and which for pixels to ignore.

use crate::dataset::blended_values::rims;
use crate::dataset::cause::STRAY;
use crate::dataset::encoding::TwoEncodings;
use crate::dataset::ignore_mark::{MarkMeaning, ignore_mark, mark_meaning};
use crate::dataset::spec::{Encoding, MAX_CLASSES, Source};
use crate::error::Error;
use crate::text::{Rest, shortened};
use crate::tools::check::{MaskSurvey, ValueCount};
use crate::tools::init::class_name::ClassName;
use crate::tools::init::given_options::letters;
use crate::tools::init::match_names::Match;
use crate::tools::init::not_labels;
use crate::tools::init::plan::Place;
use crate::tools::init::positions::listed;

/// More values than this that have a few pixels are not slips.
const MOST_SLIPS: usize = 32;

/// What VOC's palette, and those made after it, shows 255 in.
const BORDER: [u8; 3] = [224, 224, 192];

/// The values of masks, sorted into classes and others.
pub(super) struct ClassValues<'a> {
    survey: &'a MaskSurvey,
    place: &'a Place<'a>,
    /// The command that says which files hold what.
    pub(super) check: String,
    pub(super) names: Match<'a>,
    /// Values that are still classes.
    pub(super) left: Vec<(Source, ValueCount)>,
    pub(super) ignore: Vec<Source>,
    /// Where greys are other names of ids.
    pub(super) joined: Option<TwoEncodings>,
    pub(super) notes: Vec<String>,
    /// Why the values are not labels, or leave open which.
    pub(super) doubt: Option<Error>,
    /// Why options do not fit them.
    pub(super) misfit: Option<Error>,
}

/// What the value means that often marks pixels to ignore: 255, or white.
struct Marked {
    value: Source,
    is_void: bool,
}

impl<'a> ClassValues<'a> {
    /// `file`: what a file beside the masks says of names.
    pub(super) fn of(survey: &'a MaskSurvey, place: &'a Place<'a>, file: Option<(String, Vec<ClassName>)>) -> Self {
        let mut found = Self {
            survey,
            place,
            check: place.check(),
            names: Match::new(survey, place, file),
            left: Vec::new(),
            ignore: Vec::new(),
            joined: None,
            notes: Vec::new(),
            doubt: None,
            misfit: None,
        };
        found.doubt_mixture();
        found.notes = std::mem::take(&mut found.names.notes);
        let smooth = found.doubt_edges();
        let labels = survey.values().iter().filter(|(value, _)| !smooth.contains(value));
        found.left = labels.map(|(value, count)| (*value, *count)).collect();
        survey.order(&mut found.left);
        found.note_storage();
        found.note_transparency();
        found.misfit = found.absent_void();
        // Slips first: what they are called does not matter.
        found.ignore_slips();
        let marked = found.marked();
        found.ignore_void(&marked);
        found.join_grays();
        found.limit();
        found
    }

    /// What masks hold that is `n`.
    fn value(&self, n: u16) -> Source {
        if self.names.gray { Source::Rgb([n as u8; 3]) } else { Source::Index(n) }
    }

    fn number(&self, value: &Source) -> Option<u16> {
        match value {
            Source::Index(n) => Some(*n),
            Source::Rgb([n, ..]) => self.names.gray.then_some(u16::from(*n)),
        }
    }

    /// All values of the class that `value` stands for.
    pub(super) fn sources(&self, value: &Source) -> Vec<Source> {
        match (&self.joined, self.number(value)) {
            (Some(mixed), Some(n)) if n > 0 => {
                let grays = mixed.same.iter().filter(|(_, id)| **id == n).map(|(gray, _)| self.value(*gray));
                std::iter::once(*value).chain(grays.filter(|gray| gray != value)).collect()
            }
            _ => vec![*value],
        }
    }

    /// Whether `--void` says that it is left out.
    fn is_chosen(&self, value: &Source) -> bool {
        let void = self.place.options.void.as_ref();
        void.is_some_and(|void| self.number(value).is_some_and(|n| void.contains(&n)))
    }

    fn again(&self) -> String {
        format!("export all masks again as PNG in the same way; `{}` lists them", self.check)
    }

    /// Masks that store labels in several ways.
    fn doubt_mixture(&mut self) {
        let survey = self.survey;
        let doubt = if !survey.by_color() && survey.palettes.differ() {
            format!(
                "palettes show one number in different colours (`{}` and `{}`), and other masks have no palette",
                survey.palettes.groups[0].first.display(),
                survey.palettes.groups[1].first.display()
            )
        } else if let Some([a, b]) = survey.palettes.rival().filter(|_| survey.by_color()) {
            format!(
                "palettes show the same numbers in other colours, in `{}` ({} masks) and `{}` ({} masks): numbers or colours may be \
                 the labels",
                a.first.display(),
                a.files,
                b.first.display(),
                b.files
            )
        } else if let Some(mixed) = survey.kinds.shifted(|_| true).filter(|_| survey.rgb == 0) {
            let [a, b] = mixed.sides.map(|side| side.text());
            format!("{}: {a}; {b}", mixed.why)
        } else if survey.index > 0 && survey.rgb > 0 && !survey.by_color() {
            format!("{} masks hold numbers, and {} hold colours", survey.index, survey.rgb)
        } else if let Some(mirrored) = survey.kinds.mirrored() {
            mirrored.what()
        } else {
            return;
        };
        self.doubt = Some(Error::new(doubt).with_hint(self.again()));
    }

    /// Masks that were smoothed, or saved as JPEG. Returns the values that only smoothing made.
    fn doubt_edges(&mut self) -> Vec<Source> {
        let (all, given_names) = (self.survey.values(), &self.names.given_names);
        let mut smooth = not_labels::smoothed(all, self.pixels(), given_names);
        if smooth.is_empty() {
            // Smoothed edges are near their ends too, and what JPEG leaves lies between others.
            let lossy = not_labels::lossy(self.survey, all, given_names.len(), &self.check);
            if lossy.is_none() {
                smooth = rims(all.iter().map(|(value, count)| (*value, count.pixels, count.between)));
            }
            self.doubt = lossy.or(self.doubt.take());
        }
        if !smooth.is_empty() {
            let what = format!("{} values are between the others, like smoothed edges", smooth.len());
            self.doubt = Some(Error::new(what).with_hint(format!(
                "export the masks without anti-aliasing, or scale them with nearest; `{}` lists them",
                self.check
            )));
        }
        smooth
    }

    fn pixels(&self) -> u64 {
        self.survey.values().values().map(|count| count.pixels).sum()
    }

    /// How the files store what is read.
    fn note_storage(&mut self) {
        let survey = self.survey;
        if self.names.gray {
            self.notes.push("the masks are grey values saved as colours: the numbers are the grey values".to_string());
        }
        if survey.by_color() {
            let why = match survey.rgb {
                0 => "palettes differ from file to file",
                _ if survey.grays_of_both_kinds() => "some masks are grey and others RGB",
                _ => "some masks are palette PNGs and others RGB",
            };
            self.notes.push(format!("{why}: labels are read by colour, and the numbers are not used"));
        }
        if let Some((count, first)) = survey.spread.as_ref().filter(|_| !survey.by_color()) {
            self.notes.push(format!(
                "{count} of the masks have 1, 2 or 4 bits (`{}` first): as every viewer shows them, their greys are spread over 0 to \
                 255, so that 1 is 255, 85 or 17",
                first.display()
            ));
        }
        match (&survey.white_is_zero, &survey.black_is_zero) {
            (Some((count, first)), Some((others, other))) => {
                let what = format!(
                    "in {count} of them 0 is white (`{}` first), and in {others} it is black (`{}` first): one number may be \
                     two labels",
                    first.display(),
                    other.display()
                );
                let hint = "export all masks in one way, with 0 as black, for instance as PNG";
                self.doubt = Some(Error::new(what).with_hint(hint));
            }
            (Some((_, first)), None) => self.notes.push(format!(
                "the masks say that 0 is white (`{}` first): their values are used as they look, 255 for a stored 0; if the stored \
                 numbers are labels, export the masks with 0 as black",
                first.display()
            )),
            (None, _) => {}
        }
    }

    fn note_transparency(&mut self) {
        if let Some((count, first)) = &self.survey.transparent {
            self.notes.push(format!(
                "{count} of the masks have transparent pixels (`{}` first): the transparency is dropped, and the values below it \
                 count; if it holds the labels, export the masks without alpha",
                first.display()
            ));
        }
    }

    /// A number of `--void` that no mask holds.
    fn absent_void(&self) -> Option<Error> {
        let all = self.survey.values();
        let is_absent = |n: &&u16| !all.keys().any(|value| self.number(value) == Some(**n));
        let absent = self.place.options.void.iter().flatten().find(is_absent)?;
        let held = shortened(all.keys(), 12, Rest::Others);
        let error = Error::new(format!("--void leaves {absent} out, which no mask holds: they hold {held}"));
        Some(error.with_hint(format!(
            "pass values that masks hold, or leave it out: {}",
            self.place.again(false, |options| {
                options.void.iter_mut().for_each(|void| void.retain(|n| n != absent));
                options.void.take_if(|void| void.is_empty());
            })
        )))
    }

    /// Values of a few pixels that nobody meant are ignored; many of them are not labels at all.
    fn ignore_slips(&mut self) {
        let all_pixels = self.pixels();
        let is_slip = |(value, count): &(Source, ValueCount)| {
            let number = self.number(value);
            let meant = number == Some(255) || self.names.given_names.contains_key(value) || self.is_chosen(value);
            // A rare class with a name is not a slip.
            let meant = meant || number.is_some_and(|n| usize::from(n) < self.names.positions());
            // Beside the values that stay apart, compression leaves mixtures of two.
            let mixture = self.survey.jpegs > 0 && 1000 * count.pixels <= all_pixels;
            (count.pixels < STRAY || mixture) && all_pixels > 100 * STRAY && !meant
        };
        let (slips, left): (Vec<_>, Vec<_>) = self.left.iter().copied().partition(is_slip);
        self.left = left;
        if slips.len() > MOST_SLIPS {
            let error = self.many_slips(slips.len());
            self.doubt.get_or_insert(error);
        } else if !slips.is_empty() {
            let shown: Vec<String> = slips.iter().map(|(value, count)| format!("{value} ({})", count.pixels)).collect();
            let what = match self.survey.jpegs {
                0 => format!("values with fewer than {STRAY} pixels in all masks look like stray pixels"),
                _ => "values with fewer than a thousandth of all pixels are what JPEG mixes at edges".to_string(),
            };
            self.notes.push(format!("{what} and are ignored: {}", shown.join(", ")));
            self.ignore.extend(slips.iter().map(|(value, _)| *value));
        }
    }

    fn many_slips(&self, count: usize) -> Error {
        let transparent = self.survey.transparent.as_ref().map_or_else(String::new, |(count, first)| {
            format!(
                "{count} of the masks have transparent pixels (`{}` first), which may hide any colour: export them \
                 without alpha, on a plain background; ",
                first.display()
            )
        });
        Error::new(format!(
            "{count} values have fewer than {STRAY} pixels each, as in photographs, or along smoothed edges"
        ))
        .with_hint(format!(
            "{transparent}if the masks are in another folder, replace DIR by that folder in: {}; if they were smoothed, export \
             them without anti-aliasing; `{}` lists them",
            self.place.again(false, |options| options.masks = Some("DIR".into())),
            self.check
        ))
    }

    /// Decides whether the value that often marks pixels to ignore does so here.
    fn marked(&mut self) -> Marked {
        let (survey, options) = (self.survey, self.place.options);
        // Of colours, these are one channel alone.
        let numeric = self.names.gray || survey.encoding() == Encoding::Index;
        let mixed = if numeric { survey.groups.mixed() } else { None };
        let numbers: Vec<u16> = self.left.iter().filter_map(|(value, _)| self.number(value)).collect();
        let marked = ignore_mark(&numbers);
        let value = self.value(marked);
        // Who names every value says that each is a class.
        let each = mixed.is_some() && options.void.is_none() && options.names.len() == numbers.len();
        let mixed = mixed.filter(|_| !each);
        let border = survey.palette.as_ref().is_some_and(|palette| palette.get(255) == Some(&BORDER));
        let given_names = self.names.given_names.get(&value).map(|name| means_nothing(name));
        let is_void = match (&options.void, given_names, &mixed) {
            (Some(void), ..) => void.contains(&marked),
            _ if each => false,
            (None, Some(nothing), _) => nothing,
            (None, None, Some(mixed)) => {
                let error = self.two_ways(mixed, &numbers, marked);
                self.doubt.get_or_insert(error);
                true
            }
            // The palette's pale yellow marks borders, as VOC began it.
            _ if marked == 255 && numbers.contains(&255) && survey.one_palette && border => true,
            _ => self.reads_as_void(&numbers, marked),
        };
        self.joined = mixed.filter(|_| options.void.as_ref().is_some_and(Vec::is_empty));
        Marked { value, is_void }
    }

    /// What to do where some masks count classes and others show them in greys.
    fn two_ways(&self, mixed: &TwoEncodings, numbers: &[u16], marked: u16) -> Error {
        let place = self.place;
        let same = place.again(false, |options| options.void = Some(Vec::new()));
        let mut ways = vec![format!("{same} takes them for the same classes")];
        if mixed.grays.contains(&marked) && numbers.contains(&marked) {
            let out = place.again(false, |options| options.void = Some(vec![marked]));
            ways.push(format!("{out} leaves pixels of {marked} out"));
        }
        if let Some(each) = letters(numbers.len()).and_then(|letters| place.again_with_names(false, letters)) {
            ways.push(format!("{each}, with names instead of the letters, makes a class of each value"));
        }
        Error::new(mixed.what()).with_hint(format!("store all masks alike; or say which is meant: {}", ways.join(", ")))
    }

    /// What the numbers beside it say of `marked`.
    fn reads_as_void(&mut self, numbers: &[u16], marked: u16) -> bool {
        let place = self.place;
        match mark_meaning(numbers, self.names.counted()) {
            MarkMeaning::Absent => false,
            MarkMeaning::Class => {
                if numbers.len() > 2 {
                    self.notes.push(format!(
                        "the values {} are all classes, {marked} too: they are grey values, not consecutive class numbers; if {marked} marks pixels to leave out: {}",
                        listed(numbers),
                        place.again(true, |options| {
                            options.void = Some(vec![marked]);
                            // The last name was of it.
                            options.names.truncate(numbers.len() - 1);
                        })
                    ));
                }
                false
            }
            MarkMeaning::Ignored => true,
            MarkMeaning::Unclear => {
                let error = Error::new(format!(
                    "the masks hold the values {}, and {marked} may be a class or mark pixels to ignore",
                    listed(numbers)
                ));
                self.doubt.get_or_insert(error.with_hint(format!(
                    "say which: {} if {marked} is a class, {} if it is left out",
                    place.again(false, |options| options.void = Some(Vec::new())),
                    place.again(false, |options| options.void = Some(vec![marked]))
                )));
                true
            }
        }
    }

    /// Values that mark pixels to ignore, by what was decided, by option or by name.
    fn ignore_void(&mut self, marked: &Marked) {
        for (value, count) in std::mem::take(&mut self.left) {
            let name = self.names.given_names.get(&value).filter(|name| means_nothing(name));
            if value == marked.value && marked.is_void || self.is_chosen(&value) {
                let n = self.number(&value).map_or(value.to_string(), |n| n.to_string());
                self.notes.push(format!("{n} is ignored"));
            } else if let Some(name) = name {
                self.notes.push(format!("`{name}` ({value}) is ignored"));
            } else {
                self.left.push((value, count));
                continue;
            }
            self.ignore.push(value);
        }
        if self.names.ignores_255 && !self.ignore.contains(&marked.value) {
            self.ignore.push(marked.value);
        }
    }

    /// Greys that are other names of ids become their classes.
    fn join_grays(&mut self) {
        let Some(mixed) = &self.joined else { return };
        let mut left = self.left.clone();
        left.retain(|(value, _)| self.number(value).is_none_or(|n| n == 0 || !mixed.same.contains_key(&n)));
        for id in mixed.same.values().map(|id| self.value(*id)) {
            if !left.iter().any(|(one, _)| *one == id) {
                left.push((id, ValueCount::default()));
            }
        }
        left.sort_by_key(|(value, _)| *value);
        self.notes.push(format!("{}; they are joined", mixed.what()));
        self.left = left;
    }

    /// No more classes than labels have numbers.
    fn limit(&mut self) {
        if self.left.len() <= MAX_CLASSES {
            return;
        }
        let many = format!("{} different values are too many for labels", self.left.len());
        self.doubt = Some(match self.survey.kinds.objects() {
            Some(objects) => Error::new(format!("{many}, and look like those of single objects: {}", objects.why))
                .with_hint("export masks of classes: these number each object for itself"),
            None => Error::new(many).with_hint(self.again()),
        });
        self.left.sort_by_key(|(_, count)| std::cmp::Reverse(count.pixels));
        self.left.truncate(MAX_CLASSES);
        self.left.sort_by_key(|(value, _)| *value);
    }
}

/// Whether a class is called what pixels are called that count nowhere.
pub(super) fn means_nothing(name: &str) -> bool {
    const WORDS: [&str; 5] = ["void", "ignore", "ignored", "unlabeled", "unlabelled"];
    name.split(|c: char| !c.is_alphanumeric()).any(|word| WORDS.contains(&word.to_ascii_lowercase().as_str()))
}
