use std::io;

use super::*;

const PEOPLE: &str = "/etc/pgweir/people";

fn files(name: &str) -> io::Result<String> {
    match name {
        PEOPLE => Ok("ann, bob\n# nobody\n\"carl x\" @more\n".to_owned()),
        "/etc/pgweir/more" => Ok("dora\n".to_owned()),
        "/etc/pgweir/loop" => Ok("@loop\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn parse(text: &str) -> Result<HbaRules, ConfigError> {
    let maps = IdentMaps::parse("staff ann app\n", "ident.conf").unwrap();
    HbaRules::parse(text, "/etc/pgweir/hba.conf", &maps, &files)
}

/// `database user address [tls]`, `unix` being no address; the line that holds, 0 for none.
#[track_caller]
fn check(rules: &str, connection: &str, line: usize) {
    let words: Vec<_> = connection.split(' ').collect();
    let connection = Connection {
        address: (words[2] != "unix").then(|| words[2].parse().unwrap()),
        is_tls: words[3..].contains(&"tls"),
        database: words[0],
        user: words[1],
        is_replication: words[3..].contains(&"replication"),
    };
    let rules = parse(rules).unwrap();
    assert_eq!(rules.find(&connection).map_or(0, |rule| rule.line), line, "{words:?}");
}

#[track_caller]
fn broken(line: &str, error: &str) {
    let text = format!("# first\nlocal all all trust\n{line}\n");
    assert_eq!(parse(&text).unwrap_err().to_string(), format!("/etc/pgweir/hba.conf:3: {error}"));
}

#[track_caller]
fn method(line: &str, expected: Method) {
    let rules = parse(line).unwrap();
    assert_eq!(rules.rules.first().map(|rule| rule.method), Some(expected), "{line}");
}

#[test]
fn the_kind_of_connection_decides_first() {
    let rules = "local all all trust\nhostssl all all all cert\nhostnossl all all 10.0.0.0/8 md5\nhost all all all md5";
    check(rules, "db user unix", 1);
    check(rules, "db user 10.1.1.1 tls", 2);
    check(rules, "db user 10.1.1.1", 3);
    check(rules, "db user 11.1.1.1", 4);
    check(rules, "db user ::1", 4);
}

#[test]
fn the_first_line_that_fits_holds_and_there_may_be_none() {
    let rules = "local db1 all trust\nlocal all ann reject\nlocal all all md5";
    check(rules, "db1 ann unix", 1);
    check(rules, "db2 ann unix", 2);
    check(rules, "db2 bob unix", 3);
    check(rules, "db2 bob 127.0.0.1", 0);
    check("", "db user unix", 0);
}

#[test]
fn networks_are_given_by_bits_or_by_a_mask() {
    let rules = "host all all 128.0.0.0/2 trust\nhost all all 128.0.0.0/1 trust\nhost all all 127.0.0.0 255.255.255.0 trust\nhost all all 1.2.3.4/32 trust\nhost all all 0.0.0.0/0 trust";
    check(rules, "db user 191.255.255.255", 1);
    check(rules, "db user 192.0.0.0", 2);
    check(rules, "db user 127.0.0.9", 3);
    check(rules, "db user 127.0.1.9", 5);
    check(rules, "db user 1.2.3.4", 4);
    check(rules, "db user 1.2.3.5", 5);
    check(rules, "db user ::1", 0);
}

#[test]
fn networks_of_ipv6_are_compared_by_bits_too() {
    let rules = "host all all ff11::0/16 trust\nhost all all ff20::/12 trust\nhost all all ::1/128 trust\nhost all all fe80:: ffff:: trust";
    check(rules, "db user ff11:2::1", 1);
    check(rules, "db user ff22:3::1", 2);
    check(rules, "db user ::1", 3);
    check(rules, "db user ::2", 0);
    check(rules, "db user fe80::7", 4);
    check("host all all ::/0 trust", "db user ::2", 1);
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_one_of_ipv4() {
    check("host all all 10.0.0.0/8 trust", "db user ::ffff:10.1.2.3", 1);
    check("host all all ::/0 trust", "db user ::ffff:10.1.2.3", 0);
}

#[test]
fn bits_of_an_address_outside_of_its_mask_do_not_matter() {
    check("host all all 10.1.2.3/8 trust", "db user 10.9.9.9", 1);
}

#[test]
fn lists_may_be_long_and_may_hold_keywords() {
    let rules = "host tmp1,all u1,u2 , u3 16.0.0.0/8 md5\nhost d1,d2 u4 all md5";
    check(rules, "any u3 16.0.0.1", 1);
    check(rules, "any u4 16.0.0.1", 0);
    check(rules, "d2 u4 16.0.0.1", 2);
    check(rules, "d3 u4 16.0.0.1", 0);
}

#[test]
fn quoted_words_are_names() {
    let rules = r#"host "all" "all" all cert
host "q1""q2" "a,b" all cert
host "sameuser" "replication" all cert
host "@people" "+x" all cert"#;
    check(rules, "db user 1.1.1.1", 0);
    check(rules, "all all 1.1.1.1", 1);
    check(rules, "q1\"q2 a,b 1.1.1.1", 2);
    check(rules, "sameuser replication 1.1.1.1", 3);
    check(rules, "@people +x 1.1.1.1", 4);
}

#[test]
fn sameuser_is_a_database_with_the_name_of_the_user() {
    check("local sameuser all trust", "ann ann unix", 1);
    check("local sameuser all trust", "ann bob unix", 0);
    check("local all sameuser trust", "ann ann unix", 0);
}

#[test]
fn replication_is_meant_by_its_keyword_only() {
    let rules =
        "host replication admin ::1/128 trust\nhost db2,replication other ::1/128 trust\nhost all third all md5";
    check(rules, "db admin ::1 replication", 1);
    check(rules, "replication admin ::1", 0);
    check(rules, "db2 other ::1", 2);
    check(rules, "db9 other ::1 replication", 2);
    check(rules, "db third ::1 replication", 0);
}

#[test]
fn names_of_a_file_are_relative_to_the_rules() {
    let rules = "local all @people trust\nlocal @more all trust";
    for user in ["ann", "bob", "dora"] {
        check(rules, &format!("db {user} unix"), 1);
    }
    check(rules, "dora eve unix", 2);
    check(rules, "db eve unix", 0);
}

#[test]
fn each_method_has_its_word() {
    for (word, expected) in [
        ("trust", Method::Trust),
        ("reject", Method::Reject),
        ("md5", Method::Md5),
        ("password", Method::Plain),
        ("peer", Method::Peer),
        ("cert", Method::Cert),
        ("scram-sha-256", Method::ScramSha256),
    ] {
        method(&format!("local all all {word} # why"), expected);
    }
}

#[test]
fn a_map_comes_from_the_ident_file() {
    let rules = parse("local all all peer map=staff").unwrap();
    let map = rules.rules[0].map.as_ref().unwrap();
    assert!(map.allows("ann", "app") && !map.allows("ann", "ann"));
}

#[test]
fn blank_lines_and_comments_are_no_rules() {
    check("\n \t \n\t\t# z\n\nlocal all all trust", "db user unix", 5);
}

#[test]
fn a_line_that_is_none_is_named_with_what_it_should_be() {
    let kinds = "expected local, host, hostssl or hostnossl, got ";
    let methods = "expected trust, reject, md5, password, peer, cert or scram-sha-256";
    let addresses = "expected all, an address with /bits, or an address and a mask, got ";
    broken("hostgssenc all all all md5", &format!("{kinds}hostgssenc"));
    broken("local,host all all md5", &format!("{kinds}local,host"));
    broken("local", "expected databases, got the end of the line");
    broken("local all", "expected users, got the end of the line");
    broken("local all all", &format!("{methods}, got the end of the line"));
    broken("local all all ident", &format!("{methods}, got ident"));
    broken("local all all 127.0.0.1/32 md5", &format!("{methods}, got 127.0.0.1/32"));
    broken(
        "host all all all ldap ldapserver=x",
        &format!("{methods} (with passwords kept elsewhere, auth_query asks the server), got ldap"),
    );
    for address in ["localhost", "samehost", "10.0.0.0/33", "::1/129", "10.0.0.0/x", "10.0.0/8"] {
        broken(&format!("host all all {address} md5"), &format!("{addresses}{address}"));
    }
    broken("host all all 10.0.0.0 md5", "expected a mask behind the address, got md5");
    broken("host all all 10.0.0.0 ffff:: md5", &format!("{addresses}10.0.0.0"));
    broken("local samerole all md5", "expected names (roles are known to servers only), got samerole");
    broken("local all +staff md5", "expected names (no groups, no regular expressions), got +staff");
    broken("local /^a all md5", "expected names (no groups, no regular expressions), got /^a");
    broken("local all all peer map=other", "expected a map of auth_ident_file, got other");
    broken("local all all md5 map=staff", "expected map= with peer or cert only, got map=staff");
    broken("local all all cert clientcert=1", "expected map=NAME or nothing, got clientcert=1");
    broken("local all \"ann md5", "expected a closing quote, got the end of the line");
    broken("local all ann, , bob md5", "expected a name beside each comma, got none");
    broken("local all @loop md5", "expected files that do not name each other, got loop");
    broken("local all @gone md5", "expected a readable file, got /etc/pgweir/gone: entity not found");
}
