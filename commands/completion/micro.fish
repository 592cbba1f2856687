# Completion of micro for fish 3 and newer.
function __micro_complete
	set -l words (commandline -opc)
	set -l command (string replace -r '^~/' $HOME/ -- $words[1])
	set -l current (string unescape -- (commandline -ct))
	test (count $current) -gt 0; or set current (commandline -ct)
	$command __complete fish $words[2..-1] "$current" 2>/dev/null </dev/null
end
complete -c micro -f -k -a '(__micro_complete)'
