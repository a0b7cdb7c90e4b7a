//! Options that were given: commands that ask otherwise, names for classes that were found, and options that
//! have no use.

use std::path::Path;

use crate::dataset::spec::{ClassSpec, Join};
use crate::error::{Error, Result};
use crate::text::{Rest, shell_word, shortened};
use crate::tools::init::plan::Place;
use crate::tools::init::spelling;
use crate::tools::init::used_options::Flag;
use crate::tools::init::{FILE, InitOptions, Purpose, TextEncoding};

/// Letters in the place of names that are not known; none for too many.
pub(super) fn letters(count: usize) -> Option<Vec<String>> {
    (count <= 26).then(|| ('a'..='z').take(count).map(String::from).collect())
}

impl Place<'_> {
    /// Notes that the form has a use for an option.
    pub(super) fn uses(&self, flag: Flag) {
        self.used.note(flag);
    }

    /// How far values of JPEG masks may be off.
    pub(super) fn jpeg_tolerance(&self) -> Option<u8> {
        self.uses(Flag::JpegTolerance);
        self.options.jpeg_tolerance
    }

    /// The command that looks at the folder with other options. `written`: it is said when the description is there
    /// already.
    pub(super) fn again(&self, written: bool, change: impl FnOnce(&mut InitOptions)) -> String {
        let mut options = self.options.clone();
        change(&mut options);
        self.command(written, self.toml, &options)
    }

    /// The command that writes the description into another file, which is not there.
    pub(super) fn again_elsewhere(&self) -> String {
        let stem = self.toml.file_stem().unwrap_or_default().display().to_string();
        let names = (2..).map(|n| self.toml.with_file_name(format!("{stem}-{n}.toml")));
        let free = names.into_iter().find(|toml| toml.symlink_metadata().is_err());
        self.command(false, &free.unwrap_or_default(), self.options)
    }

    fn command(&self, written: bool, toml: &Path, options: &InitOptions) -> String {
        let mut words = vec!["structtoken data init".to_string(), shell_word(self.dir)];
        let mut add = |flag: &str, value: String| {
            // A value that begins with a dash is not an option.
            let between = if value.starts_with('-') { '=' } else { ' ' };
            words.push(format!("{flag}{between}{value}"));
        };
        let text = |text: String| shell_word(Path::new(&text));
        for (flag, folder) in [("--images", &options.images), ("--masks", &options.masks)] {
            folder.iter().for_each(|folder| add(flag, shell_word(folder)));
        }
        if !options.names.is_empty() {
            add("--names", text(options.names.join(",")));
        }
        options.first.iter().for_each(|first| add("--names-from", first.to_string()));
        match options.void.as_deref() {
            None => {}
            Some([]) => add("--void", "none".to_string()),
            Some(values) => add("--void", values.iter().map(u16::to_string).collect::<Vec<_>>().join(",")),
        }
        options.jpeg_tolerance.iter().for_each(|tolerance| add("--jpeg-tolerance", tolerance.to_string()));
        match options.text {
            None => {}
            Some(TextEncoding::Gbk) => add("--text", "gbk".to_string()),
            Some(TextEncoding::Latin1) => add("--text", "latin1".to_string()),
        }
        let own = self.dir.join(FILE);
        let lasting = options.purpose == Purpose::Lasting;
        if lasting && toml != own {
            add("--out", shell_word(toml));
        }
        for (given, flag) in [(options.pixels, "--pixels"), (options.percent, "--percent")] {
            words.extend(given.then(|| flag.to_string()));
        }
        let present = if lasting { written || toml.exists() } else { own.exists() };
        if present {
            words.push("--yes".to_string());
        }
        words.join(" ")
    }

    /// The command that names the files in which something is wrong.
    pub(super) fn check(&self) -> String {
        format!("structtoken data check {}", shell_word(self.dir))
    }

    /// The same with names for classes, if they can be passed so.
    pub(super) fn again_with_names(&self, written: bool, names: Vec<String>) -> Option<String> {
        let plain = |name: &String| !name.is_empty() && !name.contains(',') && !name.contains(char::is_control);
        names.iter().all(plain).then(|| {
            self.again(written, |options| {
                options.names = names;
                options.first = None;
            })
        })
    }

    /// The names of classes that were found, or those that --names gives in their place, in the same order. `rest`: the
    /// first is of what nothing covers, which names may leave out.
    ///
    /// # Errors
    /// Another number of names.
    pub(super) fn named(&self, found: Vec<String>, rest: bool) -> Result<Vec<String>> {
        let names = &self.options.names;
        if names.is_empty() {
            return Ok(found);
        }
        self.uses(Flag::Names);
        self.uses(Flag::NamesFrom);
        let first = self.options.first;
        let fits = match () {
            () if names.len() == found.len() && first != Some(1) => Some(0),
            () if rest && names.len() + 1 == found.len() && first != Some(0) => Some(1),
            () => None,
        };
        if let Some(skipped) = fits {
            if spelling::crosses(names, &found[skipped..]) {
                return Err(Error::new(format!(
                    "--names gives names that the dataset has for other classes: its own are {}",
                    listed(&found)
                ))
                .with_hint(format!(
                    "leave --names out: {}; or pass names in the order of the dataset's own",
                    self.again(false, |options| (options.names, options.first) = (Vec::new(), None))
                )));
            }
            return Ok(found.into_iter().take(skipped).chain(names.iter().cloned()).collect());
        }
        let counted = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let from = first.map_or(String::new(), |first| format!(" from {first} on"));
        let message = format!(
            "--names gives {}{from} for {}: {}",
            counted(names.len(), "name", "names"),
            counted(found.len(), "class", "classes"),
            listed(&found)
        );
        let less = if rest { "; the first may be left out" } else { "" };
        Err(Error::new(message).with_hint(match self.again_with_names(false, found) {
            Some(command) => format!("name them in this order{less}: {command}"),
            None => format!("name them in this order{less}, or write the names into the TOML"),
        }))
    }

    /// The same of classes.
    pub(super) fn named_classes(&self, mut classes: Vec<ClassSpec>, rest: bool) -> Result<Vec<ClassSpec>> {
        let names = self.named(classes.iter().map(|class| class.name.clone()).collect(), rest)?;
        classes.iter_mut().zip(names).for_each(|(class, name)| class.name = name);
        Ok(classes)
    }

    /// The same of classes whose first is the rest of joined masks.
    pub(super) fn named_joined(&self, classes: Vec<ClassSpec>, join: &mut Join) -> Result<Vec<ClassSpec>> {
        let before: Vec<String> = classes.iter().map(|class| class.name.clone()).collect();
        let classes = self.named_classes(classes, true)?;
        let now = |name: &mut String| {
            if let Some(at) = before.iter().position(|before| before == name) {
                name.clone_from(&classes[at].name);
            }
        };
        now(&mut join.rest);
        join.masks.iter_mut().for_each(|mask| now(&mut mask.class));
        Ok(classes)
    }

    /// Refuses options that the form, which is called `kind`, has no use for.
    pub(super) fn refuse_unused(&self, kind: &str) -> Result<()> {
        let options = self.options;
        let used = |flag: Flag| self.used.holds(flag);
        let refuse = |given: bool, flag: Flag, why: &str, without: fn(&mut InitOptions)| {
            if !given || used(flag) {
                return Ok(());
            }
            Err(Error::new(format!("{why}; `{}` holds {kind}", self.dir.display()))
                .with_hint(format!("leave it out: {}", self.again(false, without))))
        };
        let from = match options.names.is_empty() {
            true => "--names-from says which value the first name has, and there is no list of names without values",
            false => "--names-from says which value the first name has, and colours have no order",
        };
        refuse(options.pixels, Flag::Pixels, "--pixels is for coordinates of YOLO", |o| o.pixels = false)?;
        refuse(options.percent, Flag::Pixels, "--percent is for coordinates of YOLO", |o| o.percent = false)?;
        refuse(options.first.is_some(), Flag::NamesFrom, from, |o| o.first = None)?;
        refuse(options.void.is_some(), Flag::Void, "--void is for values of masks that are labels", |o| o.void = None)?;
        refuse(
            options.jpeg_tolerance.is_some(),
            Flag::JpegTolerance,
            "--jpeg-tolerance is for masks that are JPEGs",
            |o| o.jpeg_tolerance = None,
        )?;
        refuse(options.text.is_some(), Flag::Text, "--text is for names in text files, and none was read", |o| {
            o.text = None
        })?;
        refuse(options.images.is_some(), Flag::Images, "--images has no use where files name their images", |o| {
            o.images = None
        })?;
        refuse(!options.names.is_empty(), Flag::Names, "--names has no use", |o| o.names.clear())
    }
}

/// Names in words, the first some.
fn listed(names: &[String]) -> String {
    shortened(names.iter().map(|name| format!("`{name}`")), 12, Rest::Others)
}

/// Refuses names that cannot be told apart.
pub(super) fn names_are_distinct(names: &[String]) -> Result<()> {
    let hint = "each class has a name of its own, as in --names sky,road,car; to unite values, write them into one `source` of \
                the TOML";
    if names.iter().any(|name| name.trim().is_empty()) {
        return Err(Error::usage("--names gives an empty name").with_hint(hint));
    }
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, twice)) => Err(Error::usage(format!("--names gives `{twice}` twice")).with_hint(hint)),
        None => Ok(()),
    }
}
