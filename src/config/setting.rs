//! One declaration per setting; everything else about it is generated.

use super::{error::Problem, value::SettingValue};

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At RELOAD, SIGHUP and SET.
    OnReload,
    /// At the next start; until then a change is ignored without a word, as PgBouncer does.
    AtStart,
}

impl Applies {
    /// For the reference file.
    pub fn label(self) -> &'static str {
        match self {
            Applies::OnReload => "applies on reload",
            Applies::AtStart => "applies at start",
        }
    }
}

/// What is known about one field of a section.
pub struct Setting<S: 'static> {
    /// The key in the file.
    pub name: &'static str,
    /// Its doc comment, a line each.
    pub documentation: &'static [&'static str],
    /// What may be written.
    pub expected: &'static str,
    /// Whether its value must not be repeated in error texts.
    pub secret: bool,
    /// When a change takes effect.
    pub applies: Applies,
    /// Reads a value into the field; the error says what was expected.
    pub set: fn(&mut S, &str) -> Result<(), &'static str>,
    /// The field as SHOW CONFIG prints it.
    pub show: fn(&S) -> Option<String>,
    /// The field as SHOW CONFIG prints a default.
    pub show_default: fn(&S) -> Option<String>,
    /// Copies the field.
    pub copy: fn(&mut S, &S),
}

/// Why a value was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such key.
    Unknown,
    /// Not a value of that key; what would be.
    Expected(&'static str),
}

impl Refused {
    /// The error text; `name` is the key as the user knows it.
    pub(super) fn problem<S: Section>(self, name: String, key: &str, text: &str) -> Problem {
        match self {
            Refused::Unknown => Problem::new("a known key", "an unknown one").of(name),
            Refused::Expected(expected) if S::setting(key).is_some_and(|setting| setting.secret) => {
                Problem::new(expected, "something else").of(name)
            }
            Refused::Expected(expected) => Problem::value(name, expected, text),
        }
    }
}

/// A struct made by `settings!`.
pub trait Section: Sized + Clone + Default + 'static {
    /// One entry per key, in the order of SHOW CONFIG.
    const TABLE: &'static [Setting<Self>];

    /// What is known about `key`.
    fn setting(key: &str) -> Option<&'static Setting<Self>> {
        Self::TABLE.iter().find(|setting| setting.name == key)
    }

    /// Takes a value from a file or from SET.
    fn set(&mut self, key: &str, text: &str) -> Result<(), Refused> {
        let setting = Self::setting(key).ok_or(Refused::Unknown)?;
        (setting.set)(self, text).map_err(Refused::Expected)
    }

    /// Settings that a reload must not change keep what they were started with.
    fn keep_start_values(&mut self, running: &Self) {
        for setting in Self::TABLE.iter().filter(|setting| setting.applies == Applies::AtStart) {
            (setting.copy)(self, running);
        }
    }

    /// What a repeated section header does: back to the defaults, where there is one.
    fn reset(&mut self) {
        let defaults = Self::default();
        for setting in Self::TABLE.iter().filter(|setting| (setting.show_default)(&defaults).is_some()) {
            (setting.copy)(self, &defaults);
        }
    }
}

/// `None` for a value that cannot be read, so that the macro needs no imports where it is used.
pub(super) fn read<T: SettingValue>(text: &str) -> Result<T, &'static str> {
    T::parse(text).ok_or(T::EXPECTED)
}

/// Declares the keys of one section:
/// `/// what it does` `name: type = default, OnReload [, check];`
///
/// `check` is a `fn(&type) -> Result<(), &'static str>` whose error says what was expected. Fields after `with`
/// are no keys.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $Section:ident {
            $(
                $(#[doc = $documentation:literal])+
                $name:ident: $type:ty = $default:expr, $applies:ident $(, $check:path)?;
            )+
        }
        $(with { $($(#[$plain_meta:meta])* pub $plain:ident: $plain_type:ty,)+ })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Section {
            $($($(#[$plain_meta])* pub $plain: $plain_type,)+)?
            $($(#[doc = $documentation])+ pub $name: $type,)+
        }

        impl Default for $Section {
            fn default() -> $Section {
                $Section {
                    $($($plain: Default::default(),)+)?
                    $($name: $default,)+
                }
            }
        }

        impl $crate::config::setting::Section for $Section {
            const TABLE: &'static [$crate::config::setting::Setting<$Section>] = &[
                $($crate::config::setting::Setting {
                    name: stringify!($name),
                    documentation: &[$($documentation),+],
                    expected: <$type as $crate::config::value::SettingValue>::EXPECTED,
                    secret: <$type as $crate::config::value::SettingValue>::SECRET,
                    applies: $crate::config::setting::Applies::$applies,
                    set: |section, text| {
                        let value: $type = $crate::config::setting::read(text)?;
                        $($check(&value)?;)?
                        section.$name = value;
                        Ok(())
                    },
                    show: |section| $crate::config::value::SettingValue::show(&section.$name),
                    show_default: |section| $crate::config::value::SettingValue::show_default(&section.$name),
                    copy: |to, from| to.$name = from.$name.clone(),
                },)+
            ];
        }
    };
}
pub(crate) use settings;
