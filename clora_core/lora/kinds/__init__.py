"""The kinds of update that adapters make to a layer, each as few products as it takes."""
