//! A name that means what a test says: a library that is loaded before the C library answers for it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::scratch::scratch;

/// Only it is answered for; every other name is what it is.
pub const NAME: &str = "server.moves";

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int look_up(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    look_up *real = (look_up *)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *file = getenv("SERVER_MOVES");
    if (!node || !file || strcmp(node, "server.moves") != 0)
        return real(node, service, hints, result);
    char address[64] = "";
    FILE *meaning = fopen(file, "r");
    if (!meaning)
        return EAI_NONAME;
    int found = fscanf(meaning, "%63s", address);
    fclose(meaning);
    return found == 1 ? real(address, service, hints, result) : EAI_NONAME;
}
"#;

/// What [`NAME`] means to the processes that are told of it.
pub struct Meaning(PathBuf);

impl Meaning {
    /// At first this address.
    pub fn new(address: &str) -> Self {
        let meaning = Self(scratch().directory("names").join("meaning"));
        meaning.change(address);
        meaning
    }

    /// From now on this one, if it is looked up again.
    pub fn change(&self, address: &str) {
        let next = self.0.with_extension("next");
        scratch().write(&next, address);
        std::fs::rename(next, &self.0).unwrap();
    }

    /// The environment of such a process.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", library().display().to_string()), ("SERVER_MOVES", self.0.display().to_string())]
    }
}

/// Built once, with the compiler that the proxy needs as well.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let home = scratch().directory("library");
        let (source, library) = (home.join("names.c"), home.join("names.so"));
        scratch().write(&source, SOURCE);
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        assert!(cc.status().expect("cc, which libpg_query needs, too").success());
        library
    })
}
