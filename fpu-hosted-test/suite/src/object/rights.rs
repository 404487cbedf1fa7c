//! The switch of protection-key rights, path by path: its cost where nothing is to be written.

use super::{
    disasm::{Functions, Insn},
    rules::{forbidden, problem, Line},
    walk::{paths, text},
};

/// All but the final `ret`, by what is executed of RDPKRU and WRPKRU.
const PATHS: [(&str, [usize; 2], usize); 3] =
    [("keys off", [0, 0], 4), ("rights equal", [1, 0], 14), ("rights differ", [1, 1], 18)];

/// Judges one function: each path is one of these, and each of these is there.
pub fn judge(functions: &Functions, name: &str) -> Vec<Line> {
    let body = functions.get(name).map_or(&[][..], |body| body);
    let all = match paths(body, &|_| false) {
        Ok(all) => all,
        Err(why) => return vec![problem(name, why)],
    };
    let mut lines = Vec::new();
    let mut known = 0;
    for (what, moves, limit) in PATHS {
        let of_kind = all.iter().filter(|path| count(&path.insns) == moves);
        known += of_kind.clone().count();
        let Some(path) = of_kind.clone().max_by_key(|path| path.insns.len()) else {
            lines.push(problem(name, format!("no path `{what}`")));
            continue;
        };
        let instructions = path.insns.len() - 1;
        let mut wrong: Vec<String> = of_kind
            .flat_map(|path| &path.insns)
            .filter_map(|insn| Some(format!("{}: `{}`", forbidden(insn, &|_| false)?, text(insn))))
            .collect();
        wrong.dedup();
        if instructions > limit {
            wrong.push(format!("{instructions} instructions, {limit} are allowed"));
        }
        let listing = path.insns.iter().map(|insn| text(insn)).collect();
        let (function, path, budget) = (name.to_owned(), what.to_owned(), Some(limit));
        lines.push(Line { function, path, instructions, budget, wrong, listing });
    }
    if known != all.len() {
        lines.push(problem(name, "a path moves the register otherwise".into()));
    }
    lines
}

fn count(path: &[&Insn]) -> [usize; 2] {
    ["rdpkru", "wrpkru"].map(|name| path.iter().filter(|insn| insn.last_word() == name).count())
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::object::disasm::parse;

    const SWITCH: &str = "\
0000000000001000 <probe_rights_switch>:
    1000:\tcmp    BYTE PTR [rdx+0x4],0x1
    1001:\tjne    1007 <probe_rights_switch+0x7>
    1002:\trdpkru
    1003:\tmov    DWORD PTR [rdi],eax
    1004:\tcmp    DWORD PTR [rsi],eax
    1005:\tje     1007 <probe_rights_switch+0x7>
    1006:\twrpkru
    1007:\tret
";

    fn wrong(text: &str) -> Vec<String> {
        let lines = judge(&parse(text), "probe_rights_switch");
        lines.into_iter().flat_map(|line| line.wrong).collect()
    }

    #[test]
    fn what_moves_too_often_or_costs_too_much_is_named() {
        assert_eq!(wrong(SWITCH), [""; 0]);
        assert!(wrong("")[0].contains("runs past the end"));
        for (from, to, named) in [
            ("\trdpkru", "\tnop", "no path `rights equal`"),
            ("\tje     1007 <probe_rights_switch+0x7>", "\tnop", "no path `rights equal`"),
            ("\twrpkru", "\twrpkru\n1006:\twrpkru", "a path moves the register otherwise"),
            ("\twrpkru", "\tlock or DWORD PTR [rdi],eax\n1006:\twrpkru", "a locked access"),
            ("\twrpkru", "\tcall   400 <helper>\n1006:\twrpkru", "a call: `call 400 <helper>`"),
        ] {
            let found = wrong(&SWITCH.replacen(from, to, 1));
            assert!(found.iter().any(|why| why.contains(named)), "{to}: {found:?}");
        }
        let long =
            SWITCH.replace("\trdpkru", &format!("\trdpkru\n{}", "1002:\tnot rcx\n".repeat(9)));
        assert!(wrong(&long).contains(&"15 instructions, 14 are allowed".to_owned()));
    }
}
