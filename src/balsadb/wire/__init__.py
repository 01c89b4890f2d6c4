"""(story follows)"""
