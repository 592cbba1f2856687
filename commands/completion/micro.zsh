#compdef micro
# Completion of micro for zsh 5. A word that ends in one of = / : . @ goes on, and gets no space.
_micro() {
	local line word about command=${(Q)words[1]/#\~\//$HOME/}
	local -i wide=0
	local -a typed whole open whole_about open_about
	whence -p -- "$command" >/dev/null || command=micro # an alias
	typed=("${(@)words[2,CURRENT-1]}" "$PREFIX")
	local -a lines=("${(@f)$("$command" __complete zsh "${(@)typed}" 2>/dev/null </dev/null)}")
	for line in "${(@)lines%%$'\t'*}"; do
		(( $#line > wide )) && wide=$#line
	done
	for line in "${(@)lines}"; do
		word=${line%%$'\t'*} about=$word
		[[ -n $word ]] || continue
		[[ $line == *$'\t'* ]] && about="${(r:wide:)word}  -- ${line#*$'\t'}"
		if [[ $word == *[=/:.@] ]]; then
			open+=("$word") open_about+=("$about")
		else
			whole+=("$word") whole_about+=("$about")
		fi
	done
	if [[ -z $QIPREFIX ]] && compset -P '\~/'; then # compadd would quote the tilde
		whole=("${(@)whole#\~/}") open=("${(@)open#\~/}")
	fi
	(( $#whole )) && compadd -V micro -l -d whole_about -a -- whole
	(( $#open )) && compadd -V micro-open -l -d open_about -S '' -a -- open
	(( $#whole + $#open ))
}
if [[ ${funcstack[1]} == _micro ]]; then
	_micro "$@"
else
	(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }
	compdef _micro micro
fi
