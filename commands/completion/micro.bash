# Completion of micro for bash 3.2 and newer. It needs no bash-completion.
_micro() {
	local word command=${1/#\~\//$HOME/}
	type -P -- "$command" >/dev/null || command=micro # an alias
	COMPREPLY=()
	while IFS= read -r word; do
		COMPREPLY+=("$word")
	done < <("$command" __complete bash "$COMP_WORDBREAKS" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null </dev/null)
}
complete -o nospace -F _micro micro
