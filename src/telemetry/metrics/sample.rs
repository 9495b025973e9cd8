//! Figures that are counted elsewhere and read when somebody scrapes: what they are about may be gone the next time.

use super::{
    exposition::{Exposition, Value},
    families::{ALL, Family, Kind},
};

/// One series of this moment.
#[derive(Debug)]
pub struct Sample {
    /// Not one that is registered anywhere.
    pub family: &'static Family,
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// In the family's unit.
    pub value: f64,
}

impl Sample {
    /// A sample of `family`.
    #[must_use]
    pub fn new(family: &'static Family, labels: &[(&'static str, &str)], value: f64) -> Self {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { family, labels, value }
    }
}

/// Family by family, in the order of their declaration.
pub(super) fn render(text: &mut Exposition, samples: &[Sample]) {
    for family in ALL {
        let mut own = samples.iter().filter(|sample| sample.family.name == family.name).peekable();
        if own.peek().is_none() {
            continue;
        }
        let kind = if family.kind == Kind::Counter { "counter" } else { "gauge" };
        text.family(family.name, kind, family.help);
        for sample in own {
            let labels: Vec<_> = sample.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            text.sample(family.name, &labels, Value::Number(sample.value));
        }
    }
}
