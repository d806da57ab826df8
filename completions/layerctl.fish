complete --keep-order --exclusive --command layerctl --arguments "(COMPLETE=fish layerctl -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
