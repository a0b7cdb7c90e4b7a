//! Parameters of a request: those of its query string, and the types that it accepts.

use axum::http::{HeaderMap, StatusCode, header};

use crate::image::outlines::OutlineOptions;
use crate::serve::error::Fault;
use crate::serve::output::Output;

/// What is asked of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ask {
    pub(super) model: Option<String>,
    pub(super) output: Option<Output>,
    pub(super) options: OutlineOptions,
    /// What the image is called in the answer.
    pub(super) name: Option<String>,
}

impl Ask {
    /// Of the pairs of an address, or of a form.
    ///
    /// # Errors
    /// Names that are not known, and values that are not possible.
    pub(super) fn read<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, Fault> {
        let mut ask = Self::default();
        for (name, value) in pairs {
            ask.set(name, value)?;
        }
        Ok(ask)
    }

    /// Sets a parameter.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        let wrong = |hint: String| Fault::bad_request(format!("the parameter {name}={value} cannot be")).hint(hint);
        match name {
            "model" => self.model = Some(value.to_owned()),
            "name" => self.name = Some(value.chars().take(255).collect()),
            "output" => {
                let names = Output::NAMED.map(|(name, _)| name).join(", ");
                let found = Output::NAMED.into_iter().find(|(known, _)| *known == value);
                self.output = Some(found.ok_or_else(|| wrong(format!("there are {names}")))?.1);
            }
            "min_area" => self.options.min_area = value.parse().map_err(|_| wrong("give a number of pixels".into()))?,
            "tolerance" => {
                self.options.tolerance = value.parse().map_err(|_| wrong("give a number of pixels".into()))?;
                self.options.check().map_err(|error| wrong(error.hint().unwrap_or_default().to_owned()))?;
            }
            _ => {
                return Err(Fault::bad_request(format!("there is no parameter `{name}`"))
                    .hint("there are model, output, min_area, tolerance and name"));
            }
        }
        Ok(())
    }

    /// What is answered to a request that accepts these types.
    ///
    /// # Errors
    /// 406 where nothing of it can be made.
    pub(super) fn answered(&self, headers: &HeaderMap) -> Result<Output, Fault> {
        let accepted = accepted(headers);
        match self.output {
            Some(Output::Mask) if accepted.first().is_some_and(|first| first == "application/json") => {
                Ok(Output::MaskJson)
            }
            Some(output) => Ok(output),
            None => {
                let of = |kind: &String| match kind.as_str() {
                    "application/json" | "application/*" | "*/*" => Some(Output::Stats),
                    "image/png" | "image/*" => Some(Output::Mask),
                    "application/x-npy" => Some(Output::Npy),
                    "application/geo+json" => Some(Output::GeoJson),
                    _ => None,
                };
                let found = if accepted.is_empty() { Some(Output::Stats) } else { accepted.iter().find_map(of) };
                found.ok_or_else(|| {
                    let cause = format!("nothing can be answered as {}", accepted.join(", "));
                    Fault::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", cause)
                        .hint("accept application/json, image/png, application/x-npy or application/geo+json")
                })
            }
        }
    }
}

/// The types that are accepted, the most wanted first.
fn accepted(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut found: Vec<(f32, String)> = values
        .flat_map(|value| value.split(','))
        .take(64)
        .filter_map(|part| {
            let mut words = part.split(';').map(str::trim);
            let kind = words.next().filter(|kind| !kind.is_empty())?.to_ascii_lowercase();
            let weight = words.find_map(|word| word.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            Some((weight, kind))
        })
        .filter(|(weight, _)| *weight > 0.0)
        .collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, kind)| kind).collect()
}

/// The pairs of an address, decoded.
///
/// # Errors
/// What is not UTF-8.
pub(super) fn pairs(query: Option<&str>) -> Result<Vec<(String, String)>, Fault> {
    let decoded =
        |text: &str| unescaped(text).ok_or_else(|| Fault::bad_request(format!("`{text}` in the address is not UTF-8")));
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).take(64);
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// Text without `%41` and `+`.
fn unescaped(text: &str) -> Option<String> {
    let digit = |byte: &u8| (*byte as char).to_digit(16);
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = || Some((digit(bytes.get(at + 1)?)? * 16 + digit(bytes.get(at + 2)?)?) as u8);
        match (bytes[at], (bytes[at] == b'%').then(escaped).flatten()) {
            (_, Some(byte)) => {
                found.push(byte);
                at += 2;
            }
            (b'+', _) => found.push(b' '),
            (byte, _) => found.push(byte),
        }
        at += 1;
    }
    String::from_utf8(found).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn ask(query: &str) -> Result<Ask, Fault> {
        let pairs = pairs(Some(query))?;
        Ask::read(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    #[test]
    fn parameters_are_read_strictly() {
        let found = ask("model=a%2Db&output=geojson&min_area=5&tolerance=0.5&name=a+b%").unwrap();
        assert_eq!((found.model.as_deref(), found.output), (Some("a-b"), Some(Output::GeoJson)));
        assert_eq!(
            (found.options, found.name.as_deref()),
            (OutlineOptions { tolerance: 0.5, min_area: 5 }, Some("a b%"))
        );
        for wrong in ["output=jpeg", "min_area=-1", "min_area=", "tolerance=nan", "tolerance=-1", "what=1", "name=%ff"]
        {
            assert_eq!(ask(wrong).unwrap_err().status.as_u16(), 400, "{wrong}");
        }
    }

    #[test]
    fn the_type_that_is_wanted_most_is_answered() {
        let answered = |accept: &'static str, query: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            ask(query).unwrap().answered(&headers).map_err(|fault| fault.status.as_u16())
        };
        assert_eq!(answered("image/png", ""), Ok(Output::Mask));
        assert_eq!(answered("text/html, image/png;q=0.5, application/json;q=0.9", ""), Ok(Output::Stats));
        assert_eq!(answered("application/x-npy", ""), Ok(Output::Npy));
        assert_eq!(answered("text/html", ""), Err(406));
        assert_eq!(answered("image/png;q=0, */*", ""), Ok(Output::Stats));
        assert_eq!(answered("text/html", "output=overlay"), Ok(Output::Overlay));
        assert_eq!(answered("application/json", "output=mask"), Ok(Output::MaskJson));
        assert_eq!(Ask::default().answered(&HeaderMap::new()), Ok(Output::Stats));
    }
}
