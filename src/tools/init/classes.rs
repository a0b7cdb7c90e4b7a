//! From the values that masks hold to classes.

use std::collections::HashMap;

use crate::dataset::spec::{ClassSpec, Encoding, Source};
use crate::error::Error;
use crate::tools::check::MaskSurvey;
use crate::tools::init::InitOptions;
use crate::tools::init::class_name::ClassName;
use crate::tools::init::class_values::{ClassValues, means_nothing};
use crate::tools::init::given_options::letters;
use crate::tools::init::plan::Place;
use crate::tools::init::spelling::unite;
use crate::tools::init::used_options::Flag;

/// Commands name no more classes than this.
const MANY_NAMES: usize = 64;

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
pub(super) fn find(survey: &MaskSurvey, place: &Place, file: Option<(String, Vec<ClassName>)>) -> Found {
    place.uses(Flag::Void);
    place.uses(Flag::Names);
    let mut values = ClassValues::of(survey, place, file);
    let named = named(&mut values, place);
    let class = |(value, name)| ClassSpec { name, color: color(survey, &value), source: Some(values.sources(&value)) };
    let mut classes: Vec<ClassSpec> = named.into_iter().map(class).collect();
    note_names(&mut values.notes, &mut classes);
    if classes.len() == 1 && values.doubt.is_none() {
        values.notes.push(one_class(place, &classes[0]));
    }
    if let Some(set) = values.names.published {
        let note = published(survey, place, &classes, values.ignore.len(), set);
        values.notes.push(note);
    }
    if values.names.unnamed > 0 {
        let note = unnamed(survey, place, &classes, &values);
        values.notes.push(note);
    }
    values.notes.extend(single_objects(survey, &values));
    Found {
        encoding: survey.encoding(),
        ignore: values.ignore,
        classes,
        notes: values.notes,
        doubt: values.doubt.map(Doubt::Masks).or(values.misfit.map(Doubt::Names)),
    }
}

/// The names of the values that are classes. Those that are called nothing are ignored.
fn named(values: &mut ClassValues, place: &Place) -> Vec<(Source, String)> {
    let sources: Vec<Source> = values.left.iter().map(|(value, _)| *value).collect();
    let mut named = match values.names.give(&sources, &mut values.notes) {
        Ok(named) => named,
        Err(error) => {
            values.misfit.get_or_insert(error);
            sources.iter().map(|value| (*value, format!("class {value}"))).collect()
        }
    };
    // Names that mean nothing, found by position.
    if place.options.void.is_none() && named.len() > 1 {
        named.retain(|(value, name)| {
            let keep = !means_nothing(name);
            if !keep {
                values.notes.push(format!("`{name}` ({value}) is ignored"));
                values.ignore.push(*value);
            }
            keep
        });
    }
    if named.is_empty() {
        let error = || {
            Error::new("no value of the masks is left for a class").with_hint(format!(
                "to make a class of each value: {}",
                place.again(false, |options| options.void = Some(Vec::new()))
            ))
        };
        values.doubt.get_or_insert_with(error);
    }
    named
}

/// What masks show a class in.
fn color(survey: &MaskSurvey, value: &Source) -> Option<[u8; 3]> {
    match value {
        Source::Rgb(rgb) => Some(*rgb),
        Source::Index(n) if survey.one_palette => survey.palette.as_ref().and_then(|p| p.get(usize::from(*n))).copied(),
        Source::Index(_) => None,
    }
}

/// Makes names distinct, and notes those that are nearly the same.
fn note_names(notes: &mut Vec<String>, classes: &mut [ClassSpec]) {
    for name in distinct(classes) {
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
}

/// That one class teaches nothing.
fn one_class(place: &Place, class: &ClassSpec) -> String {
    let one = class.source.iter().flatten().next().map_or(String::new(), Source::to_string);
    format!(
        "all masks hold one value, {one}: nothing can be learned from one class; if the labels are in another folder, replace \
         DIR by that folder in: {}",
        place.again(true, |options| {
            options.masks = Some("DIR".into());
            (options.names, options.first, options.void) = (Vec::new(), None, None);
        })
    )
}

/// That names are a published set's, and how to pass others.
fn published(survey: &MaskSurvey, place: &Place, classes: &[ClassSpec], ignored: usize, set: &str) -> String {
    let command = by_names(survey, place, classes.iter().map(|class| class.name.clone()).collect())
        .or_else(|| by_names(survey, place, letters(classes.len() + ignored)?));
    format!(
        "names are those of {set}, whose colours the masks have; other tools use such colours too: if these are other \
         classes, write their names into the TOML{}",
        command.map_or(String::new(), |command| format!(", or into this: {command}"))
    )
}

/// That values have no names, and how to pass them.
fn unnamed(survey: &MaskSurvey, place: &Place, classes: &[ClassSpec], values: &ClassValues) -> String {
    let is_told =
        |class: &ClassSpec| class.source.iter().flatten().any(|value| values.names.given_names.contains_key(value));
    let name = |(class, letter): (&ClassSpec, String)| if is_told(class) { class.name.clone() } else { letter };
    let letters = letters(classes.len()).map(|letters| classes.iter().zip(letters).map(name).collect());
    let command = letters.and_then(|letters| by_names(survey, place, letters));
    format!(
        "no file says what {} mean: write their names into the TOML{}",
        match values.names.unnamed == classes.len() {
            true => "the values".to_string(),
            false => format!("{} of the {} values", values.names.unnamed, classes.len()),
        },
        command.map_or(String::new(), |command| format!(", or replace the letters by them in: {command}"))
    )
}

/// That there are as many numbers as objects, whatever they are called.
fn single_objects(survey: &MaskSurvey, values: &ClassValues) -> Option<String> {
    let objects = survey.kinds.objects().filter(|objects| objects.confirmed || values.names.unnamed > 0)?;
    let what = if matches!(objects.values.first(), Some(Source::Rgb(_))) { "colours" } else { "numbers" };
    Some(format!(
        "the {what} look like those of single objects, not of classes: {}; training would learn each as a class of its own: \
         `{}` says what to do",
        objects.why, values.check
    ))
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
