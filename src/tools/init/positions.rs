//! Names in an order, and the values that they are names of: where one way to count fits, it is taken; where several
//! do, the user is asked.
//!
//! Masks may hold `0 1 2` for three names, or `1 2 3` with 0 as background, or `0 38 75`, of which each name is of the
//! next; and a set may lack some of the classes that are named.

use crate::dataset::spec::Source;
use crate::error::{Error, Result};
use crate::text::{Rest, shortened};
use crate::tools::init::given_options::letters;
use crate::tools::init::plan::Place;

/// What is said of a 0 below names that count from 1.
const ZERO: &str =
    "0 has no name and becomes a class of its own; if it means unlabelled, move it from `classes` to `ignore`";

/// Values with their names, and what there is to say of them.
type NamesAndRemarks = (Vec<(Source, String)>, Vec<String>);

/// Names in an order, and the values that they are to be given to.
pub(super) struct Positions<'a> {
    pub(super) place: &'a Place<'a>,
    /// Where the names are from.
    pub(super) from: String,
    /// By the option, not by a file.
    pub(super) given: bool,
    pub(super) names: &'a [String],
    /// In their order.
    pub(super) values: &'a [Source],
    pub(super) gray: bool,
}

impl Positions<'_> {
    /// Colours have no order of their own: as many names as values, and given for them.
    pub(super) fn of_colors(&self) -> Result<Vec<(Source, String)>> {
        if self.given && self.values.len() == self.names.len() {
            return Ok(self.values.iter().copied().zip(self.names.iter().cloned()).collect());
        }
        let shown: Vec<String> = self.values.iter().take(16).map(Source::to_string).collect();
        let shown = shown.join(", ");
        if self.given {
            return Err(self.unfit_for(&shown));
        }
        Err(Error::new(format!("{} names classes but no colours, and the masks hold {shown}", self.from)).with_hint(
            format!(
                "write `name,r,g,b` lines into `class_dict.csv`, or pass a name for each colour, in this order: {}",
                self.with_letters()
            ),
        ))
    }

    /// Names that count from what `--names-from` says.
    pub(super) fn counted_from(&self, first: usize) -> Result<Vec<(Source, String)>> {
        let (most, high) = (self.names.len(), self.high());
        if high < most + first && first <= 1 {
            return Ok(self.numbered_from(first, self.given));
        }
        let error = Error::new(format!(
            "--names-from {first} counts {} from {first}, up to {}, and the masks hold {}",
            if most == 1 { "1 name".to_string() } else { format!("{most} names") },
            most + first - 1,
            listed(&self.numbers())
        ));
        let other = 1 - first.min(1);
        Err(if high < most + other {
            let again = self.place.again(false, |options| options.first = Some(other as u16));
            error.with_hint(format!("count from {other}: {again}"))
        } else {
            let unfit = self.unfit();
            let hint = unfit.hint().unwrap_or_default().to_string();
            error.with_source(unfit).with_hint(hint)
        })
    }

    /// Names that can be counted in one way alone, with remarks on it.
    pub(super) fn that_fit(&self) -> Result<NamesAndRemarks> {
        let (count, most, high) = (self.values.len(), self.names.len(), self.high());
        let low = self.number(&self.values[0]);
        let (by_zero, by_one) = (high < most, high <= most);
        let zero = || ZERO.to_string();
        // As many names as values: 0, 1, 2; or, by the option, whatever they are.
        if count == most && (by_zero || self.given) {
            return Ok((self.in_order(0), Vec::new()));
        }
        // One value more than names, and that is 0: the background.
        if low == 0 && count == most + 1 {
            return Ok((self.in_order(1), vec![zero()]));
        }
        // Some names have no value, but they begin with a background or were passed for all values: they count from 0.
        if by_zero && (is_background(&self.names[0]) || self.given) {
            let absent = (0..most).filter(|at| !self.values.contains(&self.value(*at)));
            let shown = shortened(absent.map(|at| format!("`{}`", self.names[at])), 8, Rest::Others);
            let kept = if self.given { "kept as classes" } else { "left out" };
            let remark = format!("the names number the values from 0; no mask shows {shown}: {kept}");
            return Ok((self.numbered_from(0, self.given), vec![remark]));
        }
        // 1, 2, 3.
        if count == most && low == 1 && by_one {
            return Ok((self.numbered_from(1, false), Vec::new()));
        }
        // The highest value is the number of names: they can only count from 1.
        if by_one && !by_zero && count < most {
            let remark = format!("there are {most} names, and the values go up to {high}: the first name is 1");
            let remarks = std::iter::once(remark).chain((low == 0).then(zero));
            return Ok((self.numbered_from(1, false), remarks.collect()));
        }
        // 0, 38, 75: each name is of the next value.
        if count == most && !by_one {
            return Ok((self.in_order(0), Vec::new()));
        }
        Err(if by_one { self.two_readings(by_zero) } else { self.unfit() })
    }

    /// The names count from 0, or follow the order of the values, or count from 1.
    fn two_readings(&self, by_zero: bool) -> Error {
        let reading = |pairs: Vec<(Source, String)>| {
            pairs.iter().take(6).map(|(value, name)| format!("{value} = {name}")).collect::<Vec<_>>().join(", ")
        };
        let count_from = |first| self.place.again(false, |options| options.first = Some(first));
        let (a, b) = if by_zero {
            (self.numbered_from(0, false), count_from(0))
        } else {
            let names = self.in_order(0).into_iter().map(|(_, name)| name).collect();
            let command = self.place.again_with_names(false, names);
            (self.in_order(0), command.unwrap_or_else(|| "--names with each value's name in order".to_string()))
        };
        Error::new(format!(
            "{} gives {}, and two readings are possible: {}; or {}",
            self.from,
            self.counts(),
            reading(a),
            reading(self.numbered_from(1, false))
        ))
        .with_hint(format!("say which: {b} for the first, {} for the second", count_from(1)))
    }

    pub(super) fn unfit(&self) -> Error {
        self.unfit_for(&listed(&self.numbers()))
    }

    fn unfit_for(&self, values: &str) -> Error {
        Error::new(format!("{} gives {}: {values}", self.from, self.counts()))
            .with_hint(format!("pass a name for each value, in the order of the values: {}", self.with_letters()))
    }

    /// `3 names for 4 values`.
    fn counts(&self) -> String {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let (names, values) = (self.names.len(), self.values.len());
        format!("{names} name{} for {values} value{}", plural(names), plural(values))
    }

    /// The command with a letter for each value.
    fn with_letters(&self) -> String {
        let letters = letters(self.values.len()).and_then(|letters| self.place.again_with_names(false, letters));
        letters.unwrap_or_else(|| format!("{} --names a,b,c", self.place.again(false, |_| {})))
    }

    /// All names with the values that they count from `first`; with a background below them.
    fn numbered_from(&self, first: usize, all: bool) -> Vec<(Source, String)> {
        let has_zero = self.number(&self.values[0]) == 0;
        let background = (first == 1 && has_zero).then(|| (self.value(0), "background".to_string()));
        let counted = self.names.iter().enumerate().map(|(at, name)| (self.value(at + first), name.clone()));
        background.into_iter().chain(counted).filter(|(value, _)| all || self.values.contains(value)).collect()
    }

    /// The names with the values in their order, the first `skip` of which are background.
    fn in_order(&self, skip: usize) -> Vec<(Source, String)> {
        let (below, values) = self.values.split_at(skip);
        let background = below.iter().map(|value| (*value, "background".to_string()));
        background.chain(values.iter().copied().zip(self.names.iter().cloned())).collect()
    }

    fn value(&self, n: usize) -> Source {
        match u8::try_from(n) {
            Ok(n) if self.gray => Source::Rgb([n; 3]),
            _ => Source::Index(n as u16),
        }
    }

    fn number(&self, value: &Source) -> u16 {
        match value {
            Source::Index(n) => *n,
            Source::Rgb([n, ..]) => u16::from(*n),
        }
    }

    fn numbers(&self) -> Vec<u16> {
        self.values.iter().map(|value| self.number(value)).collect()
    }

    /// The last value.
    fn high(&self) -> usize {
        self.values.last().map_or(0, |value| usize::from(self.number(value)))
    }
}

fn is_background(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).collect();
    ["background", "bg", "unlabeled", "unlabelled", "void", "none", "other", "ignore"]
        .contains(&plain.to_lowercase().as_str())
}

/// Numbers, the first dozen of them.
pub(super) fn listed(numbers: &[u16]) -> String {
    shortened(numbers, 12, Rest::Counted)
}
