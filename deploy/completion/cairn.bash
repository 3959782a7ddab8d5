# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Completion for cairn, loaded by bash-completion on the first TAB.
#
# Commands, options and what an argument is come from `cairn .. --help`, so they can't fall behind it;
# only the words that an option or argument takes stand here. Names of images come from the daemon, and
# when that is off there are none.

# The command line's program, as far as --help and status are asked of it.
_cairn_ask() { timeout 2 "${_cairn_program[@]}" "$@" 2>/dev/null; }

_cairn_commands() { _cairn_ask "$@" --help | sed -nE 's/^  ([a-z]+) .*/\1/p'; }

_cairn_options() {
	_cairn_ask "$@" --help |
		sed -nE 's/^ +(-[a-zA-Z])?(, )?(--[a-z][a-z-]*)?( .*|$)/\1 \3/p' | tr -s ' ' '\n' | grep .
	printf '%s\n' -h --help
}

# _cairn_value OPTION [COMMAND...]: the placeholder of the option's value; nothing if it takes none
_cairn_value() {
	local option=$1
	shift
	_cairn_ask "$@" --help | sed -nE "s/^ +(-[a-zA-Z], )?$option ([A-Z]+)( .*|\$)/\2/p" | head -n 1
}

# _cairn_argument N [COMMAND...]: the placeholder of the Nth argument; beyond the last, that if it ends in ...
_cairn_argument() {
	local n=$1 word last= words
	shift
	words=$(_cairn_ask "$@" --help | sed -nE "1s/^Usage: cairn( $*)?//p" |
		sed -E 's/\[-[^]]*\]|--[a-z-]+ [A-Z]+|--[a-z-]+//g; s/…/.../g; s/[][]/ /g')
	for word in $words; do
		last=$word
		if [ $((n -= 1)) = 0 ]; then echo "$word"; return; fi
	done
	case $last in *...) echo "$last" ;; esac
}

# The members of status's images: name, device
_cairn_images() {
	_cairn_ask status --json | sed -nE "s/^\t\t\t\"($1)\":\t\"(.*)\",?\$/\2/p" | grep .
}

_cairn_urls() {
	compopt -o nospace
	case $2 in
	file://*) compgen -f -P file:// -- "${2#file://}" ;;
	*) compgen -W 'az:// https:// file:///' -- "$2" ;;
	esac
}

# _cairn_words PLACEHOLDER CURRENT [COMMAND...]: what stands for it
_cairn_words() {
	local kinds kind current=$2
	case $1:$3 in
	IMAGE:image) kinds=FILE ;; # elsewhere an image that is served
	*) kinds=${1//|/ } ;;
	esac
	for kind in $kinds; do
		case $kind in
		NAME | IMAGE) compgen -W "$(_cairn_images name)" -- "$current" ;;
		DEVICE) compgen -W "$(_cairn_images device)" -- "$current" ;;
		URL) _cairn_urls "$kind" "$current" ;;
		DIR | CGROUP) compopt -o filenames; compgen -d -- "$current" ;;
		FILE | PATH) compopt -o filenames; compgen -f -- "$current" ;;
		WAY) compgen -W 'auto nbdfuse' -- "$current" ;;
		TYPE) compgen -W 'erofs ext4 xfs squashfs' -- "$current" ;;
		FS) compgen -W 'erofs ext4' -- "$current" ;;
		esac
	done
}

# A URL is one word to bash's COMP_WORDS only without the colon among its breaks.
_cairn() {
	local cur prev words cword i before=() command=() arguments=0 value placeholder=
	local _cairn_program=("${COMP_WORDS[0]/#\~/$HOME}")
	_get_comp_words_by_ref -n : cur prev words cword
	COMPREPLY=()

	for ((i = 1; i < cword; i++)); do
		case ${words[i]} in
		-*)
			value=$(_cairn_value "${words[i]}" "${command[@]}")
			[ -n "$value" ] || continue
			if [ $((i + 1)) = "$cword" ]; then
				placeholder=$value
			elif [ "${words[i]}" = --socket ]; then
				before=(--socket "${words[i + 1]}")
			fi
			i=$((i + 1))
			;;
		*)
			if [ $arguments = 0 ] && _cairn_commands "${command[@]}" | grep -qxF -- "${words[i]}"; then
				command+=("${words[i]}")
			else
				arguments=$((arguments + 1))
			fi
			;;
		esac
	done
	_cairn_program+=("${before[@]}")

	if [ -n "$placeholder" ]; then
		mapfile -t COMPREPLY < <(_cairn_words "$placeholder" "$cur" "${command[@]}")
	elif [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_cairn_options "${command[@]}")" -- "$cur")
	elif [ $arguments = 0 ] && [ -n "$(_cairn_commands "${command[@]}")" ]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_cairn_commands "${command[@]}")" -- "$cur")
	else
		placeholder=$(_cairn_argument $((arguments + 1)) "${command[@]}")
		mapfile -t COMPREPLY < <(_cairn_words "${placeholder%...}" "$cur" "${command[@]}")
	fi
	__ltrim_colon_completions "$cur"
}

complete -F _cairn cairn
