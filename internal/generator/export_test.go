package generator

// Versions gives the versions of the generators by their modules.
func Versions() map[string]string {
	return map[string]string{protocGenGo.module: protocGenGo.version, protocGenGoVT.module: protocGenGoVT.version}
}
