//! From the values that masks hold to classes.

use std::collections::HashMap;

use crate::dataset::cause::STRAY;
use crate::dataset::encoding::{Reading, mark, reading};
use crate::dataset::spec::{ClassSpec, Encoding, MAX_CLASSES, Source};
use crate::error::Error;
use crate::tools::check::{MaskSurvey, ValueCount};
use crate::tools::init::InitOptions;
use crate::tools::init::given_options::letters;
use crate::tools::init::named::Named;
use crate::tools::init::naming::{Match, listed};
use crate::tools::init::not_labels;
use crate::tools::init::plan::Place;
use crate::tools::init::spelling::unite;
use crate::tools::init::used_options::Flag;

/// Commands name no more classes than this.
const MANY_NAMES: usize = 64;

/// More values than this that have a few pixels are not slips.
const MOST_SLIPS: usize = 32;

/// What VOC's palette, and those made after it, shows 255 in.
const BORDER: [u8; 3] = [224, 224, 192];

/// What masks were found to hold.
pub(super) struct Found {
    pub(super) encoding: Encoding,
    pub(super) ignore: Vec<Source>,
    pub(super) classes: Vec<ClassSpec>,
    /// What the person should look over.
    pub(super) notes: Vec<String>,
    /// Why the values are not labels, or leave open which; the classes are then a guess.
    pub(super) doubt: Option<Doubt>,
}

/// Why the classes are a guess.
pub(super) enum Doubt {
    /// What the masks hold is not labels, or not clear.
    Masks(Error),
    /// What options or files of names say does not fit what the masks hold.
    Names(Error),
}

/// The classes of masks. `file`: what a file beside them says.
pub(super) fn find(survey: &MaskSurvey, place: &Place, file: Option<(String, Vec<Named>)>) -> Found {
    let options = place.options;
    place.uses(Flag::Void);
    place.uses(Flag::Names);
    let (encoding, all) = (survey.encoding(), survey.values());
    let check = place.check();
    let again = format!("export all masks again as PNG in the same way; `{check}` lists them");
    let again = again.as_str();
    let mut doubt = (survey.index > 0 && survey.rgb > 0 && !survey.by_color()).then(|| {
        Error::new(format!("{} masks hold numbers, and {} hold colours", survey.index, survey.rgb)).with_hint(again)
    });
    if !survey.by_color() && survey.palettes.differ() {
        doubt = Some(
            Error::new(format!(
                "palettes show one number in different colours (`{}` and `{}`), and other masks have no palette",
                survey.palettes.groups[0].first.display(),
                survey.palettes.groups[1].first.display()
            ))
            .with_hint(again),
        );
    } else if let Some(mixed) = survey.kinds.shifted(|_| true).filter(|_| survey.rgb == 0) {
        let [a, b] = mixed.sides.map(|side| side.text());
        doubt = Some(Error::new(format!("{}: {a}; {b}", mixed.why)).with_hint(again));
    }
    let total: u64 = all.values().map(|count| count.pixels).sum();
    let mut names = Match::new(survey, place, file);
    let mut notes = std::mem::take(&mut names.notes);
    let smooth = not_labels::smoothed(all, total, &names.given_names);
    if !smooth.is_empty() {
        doubt =
            Some(Error::new(format!("{} values are between the others, like smoothed edges", smooth.len())).with_hint(
                format!("export the masks without anti-aliasing, or scale them with nearest; `{check}` lists them"),
            ));
    }
    // Smoothed edges are near their ends too.
    if smooth.is_empty() {
        doubt = not_labels::lossy(survey, all, names.given_names.len(), &check).or(doubt);
    }
    let gray = names.gray;
    let value = |n: u16| if gray { Source::Rgb([n as u8; 3]) } else { Source::Index(n) };
    let number = |value: &Source| match value {
        Source::Index(n) => Some(*n),
        Source::Rgb([n, ..]) => gray.then_some(u16::from(*n)),
    };
    if gray {
        notes.push("the masks are grey values saved as colours: the numbers are the grey values".to_string());
    }
    let mut values: Vec<(Source, ValueCount)> =
        all.iter().filter(|(value, _)| !smooth.contains(value)).map(|(value, count)| (*value, *count)).collect();
    survey.order(&mut values);
    if survey.by_color() {
        let why = match survey.rgb {
            0 => "palettes differ from file to file",
            _ if survey.grays_of_both_kinds() => "some masks are grey and others RGB",
            _ => "some masks are palette PNGs and others RGB",
        };
        notes.push(format!("{why}: labels are read by colour, and the numbers are not used"));
    }
    if let Some((count, first)) = survey.spread.as_ref().filter(|_| !survey.by_color()) {
        notes.push(format!(
            "{count} of the masks have 1, 2 or 4 bits (`{}` first): as every viewer shows them, their greys are spread over 0 to \
             255, so that 1 is 255, 85 or 17",
            first.display()
        ));
    }
    if let Some((count, first)) = &survey.white_is_zero {
        match &survey.black_is_zero {
            Some((others, other)) => {
                doubt = Some(
                    Error::new(format!(
                        "in {count} of them 0 is white (`{}` first), and in {others} it is black (`{}` first): one number may be \
                         two labels",
                        first.display(),
                        other.display()
                    ))
                    .with_hint("export all masks in one way, with 0 as black, for instance as PNG"),
                );
            }
            None => notes.push(format!(
                "the masks say that 0 is white (`{}` first): their values are used as they look, 255 for a stored 0; if the stored \
                 numbers are labels, export the masks with 0 as black",
                first.display()
            )),
        }
    }
    if let Some((count, first)) = &survey.transparent {
        notes.push(format!(
            "{count} of the masks have transparent pixels (`{}` first): the transparency is dropped, and the values below it \
             count; if it holds the labels, export the masks without alpha",
            first.display()
        ));
    }
    let mut ignore = Vec::new();
    let absent = |n: &&u16| !all.keys().any(|value| number(value) == Some(**n));
    let mut misfit = options.void.iter().flatten().find(absent).map(|absent| {
        let shown: Vec<String> = all.keys().take(12).map(Source::to_string).collect();
        let more = if all.len() > shown.len() { " and others" } else { "" };
        Error::new(format!("--void leaves {absent} out, which no mask holds: they hold {}{more}", shown.join(", ")))
            .with_hint(format!(
                "pass values that masks hold, or leave it out: {}",
                place.again(false, |options| {
                    options.void.iter_mut().for_each(|void| void.retain(|n| n != absent));
                    options.void.take_if(|void| void.is_empty());
                })
            ))
    });

    // Slips first: what they are called does not matter.
    let mut slips: Vec<String> = Vec::new();
    values.retain(|(value, count)| {
        let chosen = options.void.as_ref().is_some_and(|void| number(value).is_some_and(|n| void.contains(&n)));
        let meant = number(value) == Some(255) || names.given_names.contains_key(value) || chosen;
        // A rare class with a name is not a slip.
        let meant = meant || number(value).is_some_and(|n| usize::from(n) < names.positions());
        let stray = count.pixels < STRAY && total > 100 * STRAY && !meant;
        if stray {
            slips.push(format!("{value} ({})", count.pixels));
            ignore.push(*value);
        }
        !stray
    });
    if slips.len() > MOST_SLIPS {
        doubt = doubt.or(Some(
            Error::new(format!(
                "{} values have fewer than {STRAY} pixels each, as in photographs, or along smoothed edges",
                slips.len()
            ))
            .with_hint(format!(
                "{}if the masks are in another folder, replace DIR by that folder in: {}; if they were smoothed, export them \
                 without anti-aliasing; `{check}` lists them",
                survey.transparent.as_ref().map_or_else(String::new, |(count, first)| format!(
                    "{count} of the masks have transparent pixels (`{}` first), which may hide any colour: export them \
                     without alpha, on a plain background; ",
                    first.display()
                )),
                place.again(false, |options| options.masks = Some("DIR".into()))
            )),
        ));
        ignore.clear();
    } else if !slips.is_empty() {
        notes.push(format!(
            "values with fewer than {STRAY} pixels in all masks look like stray pixels and are ignored: {}",
            slips.join(", ")
        ));
    }
    // Of colours, these are one channel alone.
    let mixed = if gray || encoding == Encoding::Index { survey.groups.mixed() } else { None };
    let numbers: Vec<u16> = values.iter().filter_map(|(value, _)| number(value)).collect();
    let marked = mark(&numbers);
    let void = value(marked);
    // Who names every value says that each is a class.
    let each = mixed.is_some() && options.void.is_none() && options.names.len() == numbers.len();
    let mixed = mixed.filter(|_| !each);
    let border = survey.one_palette && survey.palette.as_ref().is_some_and(|palette| palette.get(255) == Some(&BORDER));
    let leaves_out = |name: Option<&String>| name.is_some_and(|name| means_nothing(name));
    let is_void = match (&options.void, &mixed) {
        (Some(void), _) => void.contains(&marked),
        _ if each => false,
        _ if names.given_names.contains_key(&void) => leaves_out(names.given_names.get(&void)),
        (None, Some(mixed)) => {
            let same = place.again(false, |options| options.void = Some(Vec::new()));
            let mut ways = vec![format!("{same} takes them for the same classes")];
            if mixed.grays.contains(&marked) && numbers.contains(&marked) {
                let out = place.again(false, |options| options.void = Some(vec![marked]));
                ways.push(format!("{out} leaves pixels of {marked} out"));
            }
            if let Some(each) = letters(numbers.len()).and_then(|letters| place.again_with_names(false, letters)) {
                ways.push(format!("{each}, with names instead of the letters, makes a class of each value"));
            }
            doubt = doubt.or(Some(
                Error::new(mixed.what())
                    .with_hint(format!("store all masks alike; or say which is meant: {}", ways.join(", "))),
            ));
            true
        }
        // The palette's pale yellow marks borders, as VOC began it.
        (None, None) if marked == 255 && numbers.contains(&255) && border => true,
        (None, None) => match reading(&numbers, names.counted()) {
            Reading::Absent => false,
            Reading::Class => {
                if numbers.len() > 2 {
                    notes.push(format!(
                        "the values {} are all classes, {marked} too: they are grey values, not consecutive class numbers; if {marked} marks pixels to leave out: {}",
                        listed(&numbers),
                        place.again(true, |options| {
                            options.void = Some(vec![marked]);
                            // The last name was of it.
                            options.names.truncate(numbers.len() - 1);
                        })
                    ));
                }
                false
            }
            Reading::Void => true,
            Reading::Unclear => {
                doubt = doubt.or(Some(
                    Error::new(format!(
                        "the masks hold the values {}, and {marked} may be a class or mark pixels to ignore",
                        listed(&numbers)
                    ))
                    .with_hint(format!(
                        "say which: {} if {marked} is a class, {} if it is left out",
                        place.again(false, |options| options.void = Some(Vec::new())),
                        place.again(false, |options| options.void = Some(vec![marked]))
                    )),
                ));
                true
            }
        },
    };
    let merged = mixed.filter(|_| options.void.as_ref().is_some_and(Vec::is_empty));
    values.retain(|(value, _)| {
        let chosen = options.void.as_ref().is_some_and(|void| number(value).is_some_and(|n| void.contains(&n)));
        let name = names.given_names.get(value).filter(|name| means_nothing(name));
        if *value == void && is_void || chosen {
            let n = number(value).map_or(value.to_string(), |n| n.to_string());
            notes.push(format!("{n} is read as pixels to ignore"));
        } else if let Some(name) = name {
            notes.push(format!("`{name}` ({value}) is read as pixels to ignore"));
        } else {
            return true;
        }
        ignore.push(*value);
        false
    });
    if names.ignores_255 && !ignore.contains(&void) {
        ignore.push(void);
    }
    if let Some(mixed) = &merged {
        // Greys are other names of the ids.
        values.retain(|(value, _)| number(value).is_none_or(|n| n == 0 || !mixed.same.contains_key(&n)));
        for id in mixed.same.values() {
            if !values.iter().any(|(one, _)| *one == value(*id)) {
                values.push((value(*id), ValueCount::default()));
            }
        }
        values.sort_by_key(|(value, _)| *value);
        notes.push(format!("{}; they are joined", mixed.what()));
    }
    if values.len() > MAX_CLASSES {
        let many = format!("{} different values are too many for labels", values.len());
        doubt = Some(match survey.kinds.objects() {
            Some(objects) => Error::new(format!("{many}, and look like those of single objects: {}", objects.why))
                .with_hint("export masks of classes: these number each object for itself"),
            None => Error::new(many).with_hint(again),
        });
        values.sort_by_key(|(_, count)| std::cmp::Reverse(count.pixels));
        values.truncate(MAX_CLASSES);
        values.sort_by_key(|(value, _)| *value);
    }
    let values: Vec<Source> = values.into_iter().map(|(value, _)| value).collect();
    let mut named = match names.give(&values, &mut notes) {
        Ok(named) => named,
        Err(error) => {
            misfit = misfit.or(Some(error));
            values.iter().map(|value| (*value, format!("class {value}"))).collect()
        }
    };
    // Names that mean nothing, found by position.
    if options.void.is_none() && named.len() > 1 {
        named.retain(|(value, name)| {
            let keep = !means_nothing(name);
            if !keep {
                notes.push(format!("`{name}` ({value}) is read as pixels to ignore"));
                ignore.push(*value);
            }
            keep
        });
    }
    if named.is_empty() && doubt.is_none() {
        doubt = Some(Error::new("no value of the masks is left for a class").with_hint(format!(
            "to make a class of each value: {}",
            place.again(false, |options| options.void = Some(Vec::new()))
        )));
    }
    let color = |value: &Source| match value {
        Source::Rgb(rgb) => Some(*rgb),
        Source::Index(n) if survey.one_palette => survey.palette.as_ref().and_then(|p| p.get(usize::from(*n))).copied(),
        Source::Index(_) => None,
    };
    let sources = |one: &Source| match (&merged, number(one)) {
        (Some(mixed), Some(n)) if n > 0 => {
            let grays = mixed.same.iter().filter(|(_, id)| **id == n).map(|(gray, _)| value(*gray));
            std::iter::once(*one).chain(grays.filter(|gray| gray != one)).collect()
        }
        _ => vec![*one],
    };
    let mut classes: Vec<ClassSpec> = named
        .into_iter()
        .map(|(value, name)| ClassSpec { name, color: color(&value), source: Some(sources(&value)) })
        .collect();
    for name in distinct(&mut classes) {
        notes.push(format!("several values are called `{name}`: they are numbered, and are classes of their own"));
    }
    let names_now: Vec<String> = classes.iter().map(|class| class.name.clone()).collect();
    for alike in unite(&names_now, &[]).groups {
        notes.push(format!(
            "`{}` differ in spelling alone, and are classes of their own; if they are one, write all their values into one `source` \
             of the TOML",
            alike.join("` and `")
        ));
    }
    if classes.len() == 1 && doubt.is_none() {
        let one = classes[0].source.iter().flatten().next().map_or(String::new(), Source::to_string);
        notes.push(format!(
            "all masks hold one value, {one}: nothing can be learned from one class; if the labels are in another folder, \
             replace DIR by that folder in: {}",
            place.again(true, |options| {
                options.masks = Some("DIR".into());
                (options.names, options.first, options.void) = (Vec::new(), None, None);
            })
        ));
    }
    if let Some(set) = names.published {
        let command = by_names(survey, place, classes.iter().map(|class| class.name.clone()).collect())
            .or_else(|| by_names(survey, place, letters(classes.len() + ignore.len())?));
        notes.push(format!(
            "names are those of {set}, whose colours the masks have; other tools use such colours too: if these are other \
             classes, write their names into the TOML{}",
            command.map_or(String::new(), |command| format!(", or into this: {command}"))
        ));
    }
    if names.unnamed > 0 {
        let is_named =
            |class: &ClassSpec| class.source.iter().flatten().any(|value| names.given_names.contains_key(value));
        let name = |(class, letter): (&ClassSpec, String)| if is_named(class) { class.name.clone() } else { letter };
        let letters = letters(classes.len()).map(|letters| classes.iter().zip(letters).map(name).collect());
        let command = letters.and_then(|letters| by_names(survey, place, letters));
        notes.push(format!(
            "no file says what {} mean: write their names into the TOML{}",
            match names.unnamed == classes.len() {
                true => "the values".to_string(),
                false => format!("{} of the {} values", names.unnamed, classes.len()),
            },
            command.map_or(String::new(), |command| format!(", or replace the letters by them in: {command}"))
        ));
    }
    // As many numbers as objects, whatever they are called.
    if let Some(objects) = survey.kinds.objects().filter(|objects| objects.confirmed || names.unnamed > 0) {
        let what = if matches!(objects.values.first(), Some(Source::Rgb(_))) { "colours" } else { "numbers" };
        notes.push(format!(
            "the {what} look like those of single objects, not of classes: {}; training would learn each as a class of its own: \
             `{check}` says what to do",
            objects.why
        ));
    }
    let doubt = doubt.map(Doubt::Masks).or(misfit.map(Doubt::Names));
    Found { encoding, ignore, classes, notes, doubt }
}

/// The command that calls the classes so, in order, where that is what comes of it.
fn by_names(survey: &MaskSurvey, place: &Place, names: Vec<String>) -> Option<String> {
    if names.len() > MANY_NAMES {
        return None;
    }
    let options = InitOptions { names: names.clone(), first: None, ..place.options.clone() };
    let found = find(survey, &place.with(&options), None);
    let fits = found.doubt.is_none() && found.classes.iter().map(|class| &class.name).eq(&names);
    if fits { place.again_with_names(true, names) } else { None }
}

/// Whether a class is called what pixels are called that count nowhere.
fn means_nothing(name: &str) -> bool {
    const WORDS: [&str; 5] = ["void", "ignore", "ignored", "unlabeled", "unlabelled"];
    name.split(|c: char| !c.is_alphanumeric()).any(|word| WORDS.contains(&word.to_ascii_lowercase().as_str()))
}

/// Numbers names that occur again, and says which they are.
fn distinct(classes: &mut [ClassSpec]) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut twice = Vec::new();
    for class in classes {
        let times = seen.entry(class.name.clone()).or_default();
        *times += 1;
        if *times == 2 {
            twice.push(class.name.clone());
        }
        if *times > 1 {
            class.name = format!("{} ({times})", class.name);
        }
    }
    twice
}
